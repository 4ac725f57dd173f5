//! Tables of bans.

use super::table::{Column, Table, format_duration};
use super::view::{ago, counted, time_to, with_table};
use crate::wire::admin::{ActiveBan, ListBansResponse, RemoveBanResponse, active_ban::Target};
use Column::{Left, Right};
use std::time::SystemTime;

/// A list of bans.
pub(super) fn list(response: &ListBansResponse, now: SystemTime) -> String {
    let count = counted(response.bans.len() as u64, response.total_size, "ban");
    with_table(&response.bans, |all| table(all, now), &count)
}

/// A removed ban.
pub(super) fn removed(response: &RemoveBanResponse, now: SystemTime) -> String {
    let removed: Vec<_> = response.ban.iter().cloned().collect();
    with_table(&removed, |all| table(all, now), "removed 1 ban")
}

fn table(all: &[ActiveBan], now: SystemTime) -> Table {
    let mut table = Table::new(&[
        Left("BY"),
        Left("BANNED"),
        Right("AGE"),
        Right("REMAINING"),
        Right("REFUSED"),
        Left("REASON"),
    ]);
    for ban in all {
        let (by, banned) = match &ban.target {
            Some(Target::Address(address)) => ("address", address.as_str()),
            Some(Target::Name(name)) => ("name", name.as_str()),
            None => ("", ""),
        };
        table.row([
            by.to_owned(),
            banned.to_owned(),
            ago(ban.since, now),
            ban.until.map(|until| format_duration(time_to(until, now))).unwrap_or_default(),
            ban.refused_attempts.to_string(),
            ban.reason.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;
    use std::time::Duration;

    #[test]
    fn ban_row_has_the_remaining_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = |seconds: i64| Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 });
        let ban = ActiveBan {
            target: Some(Target::Name("mal\u{1b}lory".into())),
            since: at(-192),
            until: at(600),
            reason: "be nice".into(),
            refused_attempts: 3,
        };
        let response = ListBansResponse { bans: vec![ban.clone()], total_size: 2, ..Default::default() };
        let expected = "\
BY    BANNED           AGE  REMAINING  REFUSED  REASON
name  mal\\u{1b}lory  3m12s     10m00s        3  be nice
1 of 2 bans
";
        assert_eq!(list(&response, now), expected);
        assert!(removed(&RemoveBanResponse { ban: Some(ban) }, now).ends_with("be nice\nremoved 1 ban\n"));
        assert_eq!(list(&ListBansResponse::default(), now), "0 bans\n");
    }
}
