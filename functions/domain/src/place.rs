//! Where copies are, in the words of reports and commands.

/// `eu-west-1`, or `eu-west-1 of account 210987654321` where that is another one.
pub fn place(region: &str, account: Option<&str>) -> String {
    account.map_or_else(|| region.to_owned(), |account| format!("{region} of account {account}"))
}
