//! Proofs that the deployer converges.
