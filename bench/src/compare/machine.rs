//! The description of the comparison's setting: machine, kernel, disk, versions, settings, promises.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// One paragraph for the top of the report.
pub(crate) fn describe(directory: &Path, settings: &Value) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let models: Vec<&str> = models.map(|(_, model)| model.trim()).collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let uname = rustix::system::uname();
    let mut text = format!(
        "Machine: {} × {}, {} GiB of memory, Linux {}, data on {}. Clients on the same machine.\n",
        models.len(),
        models.first().unwrap_or(&"an unnamed processor"),
        kibibytes.unwrap_or_default() >> 20,
        uname.release().to_string_lossy(),
        file_system(directory),
    );
    text += &format!(
        "Measured until {}; medians and ranges of the pairs.\n\n",
        SystemTime::now().duration_since(UNIX_EPOCH).map_or_else(
            |_| "an unknown day".to_owned(),
            |since| date(since.as_secs())
        )
    );
    text += "What the promises are: *process*, an acknowledged record survives the end of the \
             broker's process (Kafka's default); *disk*, it survives a power cut (Kafka with \
             `flush.messages=1` on the topic).\n\nSettings:\n\n";
    for (name, value) in settings.as_object().into_iter().flatten() {
        text += &format!("- {name}: `{value}`\n");
    }
    text
}

/// The day and hour (UTC) of a Unix time, after Howard Hinnant's `civil_from_days`.
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (seconds % 86_400 / 3_600, seconds % 3_600 / 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Device, type and options of a folder's file system.
fn file_system(directory: &Path) -> String {
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point) = (fields.next()?, fields.next()?);
        let (kind, options) = (fields.next()?, fields.next()?);
        directory
            .starts_with(point)
            .then(|| (point.len(), format!("{kind} ({device}, {options})")))
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "an unknown file system".to_owned(), |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(date(1_795_295_190), "2026-11-21 21:06 UTC");
    }
}
