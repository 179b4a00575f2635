//! Whatever is changed behind our back shows in the plan, in words, and the next deploy repairs it.
