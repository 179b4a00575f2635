//! Which of the environment's snapshots another account may read, so that it can copy them: read, given and taken back.

use std::collections::BTreeSet;

use snapwarden_domain::report::Failure;
use snapwarden_domain::settings::{CleanupSettings, CopyTarget};
use snapwarden_runtime::sharing::{Sharing, change, shared_with};
use snapwarden_runtime::{Deadline, Ec2, Invocation};

use crate::copy::{Answer, is_for_all, meaning};

/// What an account may read.
pub(crate) struct Shared<'a> {
    /// EC2 at home, where the snapshots are.
    ec2: &'a Ec2,
    account: &'a str,
    ids: BTreeSet<String>,
}

impl<'a> Shared<'a> {
    /// What the account of a target may read now; nothing where the copies are in the own account.
    ///
    /// It has to be read before the snapshots and the copies are. Then a pass takes back only what it sees older news of:
    /// never what another pass shares beside it for a copy that this one does not know of yet.
    pub(crate) async fn read(
        invocation: &'a Invocation<CleanupSettings>,
        target: &'a CopyTarget,
    ) -> Result<Option<Self>, Failure> {
        let Some(account) = target.account() else { return Ok(None) };
        let ec2 = &invocation.ec2;
        let ids = shared_with(ec2, &invocation.settings.owner(), account).await?;
        Ok(Some(Self { ec2, account, ids }))
    }

    pub(crate) fn ids(&self) -> &BTreeSet<String> {
        &self.ids
    }

    /// Lets the account at a snapshot, unless it may read it already.
    pub(crate) async fn grant(&mut self, id: &str) -> Result<(), Answer> {
        if !self.ids.contains(id) {
            self.ask(id, false).await?;
            self.ids.insert(id.to_owned());
        }
        Ok(())
    }

    /// Asks EC2 whether it would let the function do that. Nothing is shared.
    pub(crate) async fn may_grant(&self, id: &str) -> Result<(), Failure> {
        match self.ask(id, true).await {
            Err(Answer::Refused(failure) | Answer::Unclear(failure)) => {
                Err(failure.during("a real pass could not copy"))
            }
            Ok(()) | Err(Answer::NoPlace | Answer::NotNow) => Ok(()),
        }
    }

    async fn ask(&self, id: &str, dry_run: bool) -> Result<(), Answer> {
        let Err(failure) = change(self.ec2, id, self.account, Sharing::Granted, dry_run).await else {
            return Ok(());
        };
        let is_about_it = failure.code.as_deref().is_some_and(|code| code.starts_with("InvalidParameter"));
        let failure = failure.during(&format!("could not be shared with account {}", self.account));
        if is_about_it {
            let hint = "what AWS's own key, alias/aws/ebs, encrypts cannot be shared: copy it under a key of yours, see \
                        docs/copies.md";
            return Err(Answer::Refused(Failure { hint: Some(hint.to_owned()), ..failure }));
        }
        Err(meaning(failure, false))
    }

    /// Takes snapshots back, until the time is up, and says what could not be.
    pub(crate) async fn withdraw(&mut self, ids: Vec<String>, deadline: Deadline) -> Vec<Failure> {
        let mut failures = Vec::new();
        for id in ids {
            if deadline.has_passed() {
                break;
            }
            match change(self.ec2, &id, self.account, Sharing::Withdrawn, false).await {
                Ok(()) => _ = self.ids.remove(&id),
                // It is gone, and nobody's to read.
                Err(failure) if failure.code.as_deref() == Some("InvalidSnapshot.NotFound") => {
                    self.ids.remove(&id);
                }
                Err(failure) => {
                    let ends = is_for_all(&failure);
                    let what = format!("{id} is still shared with account {}", self.account);
                    failures.push(failure.during(&what));
                    if ends {
                        break;
                    }
                }
            }
        }
        failures
    }
}
