//! The figures of a run by name, for JSON and the comparison. The unit is last in each name.
//!
//! Never rounds: the printed table does.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::load::LoadResult;

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Processor time of unrelated processes.
pub(crate) const OTHERS: &str = "others_cpu_percent_of_a_core";

/// The percentiles reported, with their names.
const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];

/// All figures of a run. Those of the broker's process and disk are left out when not watched, latencies when
/// nothing of their kind happened.
pub(crate) fn of(outcome: &LoadResult) -> Figures {
    let mut figures = Figures::new();
    let seconds = outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut put = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    put("elapsed_s", seconds);
    put(OTHERS, outcome.others_share() * 100.0);
    put("failures", outcome.failures as f64);
    put("unanswered", outcome.unanswered as f64);
    put("unpaired", outcome.unpaired as f64);
    if outcome.requests > 0 {
        put("produce_requests", outcome.requests as f64);
        put("produce_requests_per_s", outcome.requests as f64 / seconds);
        put("produce_records_per_s", outcome.records as f64 / seconds);
        put("produce_mb_per_s", outcome.bytes as f64 / 1e6 / seconds);
        let served = |end: Option<&u64>| end.copied().unwrap_or_default() as f64;
        put("served_per_connection_min", served(outcome.served.first()));
        put("served_per_connection_max", served(outcome.served.last()));
    }
    if outcome.fetches > 0 {
        put("fetch_requests_per_s", outcome.fetches as f64 / seconds);
        let records = outcome.fetched_records as f64;
        put("fetch_records_per_s", records / seconds);
        put(
            "fetch_mb_per_s",
            outcome.fetched_bytes as f64 / 1e6 / seconds,
        );
    }
    latencies(&mut figures, "produce", &outcome.latency_us);
    latencies(&mut figures, "end_to_end", &outcome.end_to_end_us);
    latencies(&mut figures, "fetch", &outcome.fetch_us);
    costs(&mut figures, outcome);
    figures
}

fn latencies(figures: &mut Figures, of: &str, latency_us: &Histogram<u64>) {
    if latency_us.is_empty() {
        return;
    }
    for (name, quantile) in PERCENTILES {
        let value = latency_us.value_at_quantile(quantile);
        figures.insert(format!("{of}_{name}_us"), value as f64);
    }
    figures.insert(format!("{of}_max_us"), latency_us.max() as f64);
    figures.insert(format!("{of}_mean_us"), latency_us.mean());
}

/// Processor time, memory and writing. Per GB and per record counts produced ones, or consumed ones when nothing
/// was produced.
fn costs(figures: &mut Figures, outcome: &LoadResult) {
    let usage = &outcome.usage;
    let (requests, records, bytes) = if outcome.requests > 0 {
        (outcome.requests, outcome.records, outcome.bytes)
    } else {
        let LoadResult {
            fetches,
            fetched_records,
            fetched_bytes,
            ..
        } = *outcome;
        (fetches, fetched_records, fetched_bytes)
    };
    let per = |count: u64| (count > 0).then_some(count as f64);
    let (per_request, per_record, per_gb) = (per(requests), per(records), per(bytes));
    let shares = [
        ("broker", usage.broker()),
        ("broker_user", usage.broker_user),
        ("broker_system", usage.broker_system),
        ("broker_and_kernel", usage.with_kernel()),
        ("client", usage.client),
    ];
    for (name, time) in shares {
        // A broker without any processor time during a load was not watched.
        if time.is_zero() && name.starts_with("broker") {
            continue;
        }
        let spent = time.as_secs_f64();
        let mut put = |unit: &str, value: Option<f64>| {
            if let Some(value) = value {
                figures.insert(format!("{name}_cpu_{unit}"), value);
            }
        };
        put("s", Some(spent));
        put(
            "us_per_request",
            per_request.map(|count| spent * 1e6 / count),
        );
        put(
            "s_per_million_records",
            per_record.map(|count| spent * 1e6 / count),
        );
        put("s_per_gb", per_gb.map(|count| spent * 1e9 / count));
    }
    let counters = [
        ("broker_written_bytes", usage.written_bytes),
        ("broker_read_bytes", usage.read_bytes),
        ("broker_write_calls", usage.write_calls),
        ("disk_written_bytes", usage.disk_written_bytes),
        ("disk_writes", usage.disk_writes),
        ("disk_flushes", usage.disk_flushes),
        ("resident_before_bytes", outcome.resident_before_bytes),
        ("resident_bytes_max", outcome.resident_bytes_max),
    ];
    for (name, value) in counters.into_iter().filter(|(_, value)| *value > 0) {
        figures.insert(name.to_owned(), value as f64);
    }
}
