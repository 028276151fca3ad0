//! What the session of each target asked of its disk: counters and latencies, from zero again when a session begins.

use std::fmt;

use bmi_agent_api::event::{LATENCY_BOUNDS, Requests, SessionStatistics};
use bmi_db::counts::TargetCount;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::{Labels, gauges, set, target_labels};

/// No target has done more. What one says is not believed: the sum of all classes must not overflow.
const COUNT_MAX: u64 = u64::MAX / 64;

/// Adds what is known of every session.
pub(super) fn register(registry: &mut Registry, targets: &[TargetCount]) {
    let began = gauges(
        registry,
        "target_session_start_timestamp_seconds",
        "When the session that began last at a target did",
    );
    let failures: Family<Labels, Counter> = Family::default();
    registry.register(
        "target_request_failures",
        "Requests of the session to the disk that failed",
        failures.clone(),
    );
    let bytes: Family<Labels, Counter> = Family::default();
    registry.register(
        "target_request_bytes",
        "Bytes that requests of the session read or wrote",
        bytes.clone(),
    );
    let mut durations = Vec::new();
    for target in targets {
        let Some(session) = &target.session else { continue };
        set(&began, target_labels(target), session.began_at.micros() / 1_000_000);
        let statistics: SessionStatistics = match serde_json::from_str(&session.statistics) {
            Ok(statistics) => statistics,
            Err(error) => {
                tracing::warn!(%error, instance = %target.instance, "the session's statistics cannot be read");
                continue;
            }
        };
        let SessionStatistics { read, write, flush, other } = statistics;
        for (kind, requests) in [("read", read), ("write", write), ("flush", flush), ("other", other)] {
            let mut labels = target_labels(target).to_vec();
            labels.push(("kind", kind.to_owned()));
            failures.get_or_create(&labels).inc_by(requests.failed);
            bytes.get_or_create(&labels).inc_by(requests.bytes);
            durations.push((labels, requests));
        }
    }
    registry.register_collector(Box::new(Durations(durations)));
}

/// Histograms that were made elsewhere.
#[derive(Debug)]
struct Durations(Vec<(Labels, Requests)>);

impl Collector for Durations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "target_request_duration",
            "Time from when all of a request to the disk had arrived until its answer was ready to be sent",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (labels, requests) in &self.0 {
            let bounds = LATENCY_BOUNDS.iter().map(|micros| seconds(*micros)).chain([f64::INFINITY]);
            let counts = requests.latency.map(|count| count.min(COUNT_MAX));
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let sum = seconds(requests.micros);
            let mut metric = family.encode_family(labels)?;
            metric.encode_histogram::<Labels>(sum, counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time that is shown")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
