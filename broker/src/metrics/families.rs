//! Metric families as the endpoint tells them: names, help texts, labels, values; put into Prometheus' text form by the
//! `prometheus` crate. Never: two families of one name.

use prometheus::{
    TextEncoder,
    proto::{
        Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary,
    },
};

use gracchus_common::cells::Times;

/// Label names with their values.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// What a scrape has gathered so far.
#[derive(Debug, Default)]
pub(crate) struct Families(Vec<MetricFamily>);

/// One family, to be filled.
#[derive(Debug)]
pub(crate) struct Family {
    family: MetricFamily,
    metrics: Vec<Metric>,
}

impl Family {
    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { family, metrics: Vec::new() }
    }

    /// Of values that only grow.
    pub(crate) fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    /// Of values that come and go.
    pub(crate) fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    /// Of times with their distribution.
    pub(crate) fn histogram(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    /// Of times with their sum.
    pub(crate) fn summary(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::SUMMARY)
    }

    /// Adds the value of a counter or gauge.
    pub(crate) fn value(&mut self, labels: Labels<'_>, value: f64) -> &mut Self {
        let mut metric = labelled(labels);
        if self.family.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
        self
    }

    /// Adds a distribution.
    pub(crate) fn times(&mut self, labels: Labels<'_>, times: &Times) -> &mut Self {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(times.count);
        histogram.set_sample_sum(times.sum);
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        histogram.set_bucket(times.buckets.iter().map(bucket).collect());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
        self
    }

    /// Adds a sum of times, with `quantiles` of those of late: share and value.
    pub(crate) fn sum(
        &mut self,
        labels: Labels<'_>,
        quantiles: impl IntoIterator<Item = (f64, f64)>,
        count: u64,
        sum: f64,
    ) -> &mut Self {
        let quantile = |(share, value): (f64, f64)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(share);
            quantile.set_value(value);
            quantile
        };
        let mut summary = Summary::default();
        summary.set_quantile(quantiles.into_iter().map(quantile).collect());
        summary.set_sample_count(count);
        summary.set_sample_sum(sum);
        let mut metric = labelled(labels);
        metric.set_summary(summary);
        self.metrics.push(metric);
        self
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

impl Families {
    /// A family with this one value and no label.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Family::gauge(name, help);
        family.value(&[], value);
        self.add(family);
    }

    /// A family with this one value and no label.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: f64) {
        let mut family = Family::counter(name, help);
        family.value(&[], value);
        self.add(family);
    }

    /// Takes a filled family; one without values is left out.
    pub(crate) fn add(&mut self, Family { mut family, metrics }: Family) {
        assert!(self.0.iter().all(|other| other.name() != family.name()), "{} twice", family.name());
        if !metrics.is_empty() {
            family.set_metric(metrics);
            self.0.push(family);
        }
    }

    /// What `known` has (counters or gauges), under another name that dashboards ask for. As a gauge: a counter's name would
    /// have to end in `_total`.
    pub(crate) fn also(&mut self, known: &str, name: &str) {
        let Some(family) = self.0.iter().find(|family| family.name() == known) else { return };
        let mut other = Family::gauge(name, &format!("The same as {known}."));
        for metric in family.get_metric() {
            let mut copy = Metric::from_label(metric.get_label().to_vec());
            let mut gauge = Gauge::default();
            gauge.set_value(match family.get_field_type() {
                MetricType::COUNTER => metric.get_counter().get_value(),
                _ => metric.get_gauge().get_value(),
            });
            copy.set_gauge(gauge);
            other.metrics.push(copy);
        }
        self.add(other);
    }

    /// Everything in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0).expect("every family has a name and a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form() {
        let mut families = Families::default();
        families.gauge("free_bytes", "Bytes.", 3.0);
        let mut family = Family::counter("requests_total", "Of a \"kind\".");
        family.value(&[("request", "Pro\"duce\n")], 7.0);
        families.add(family);
        families.add(Family::counter("nothing_total", "Left out."));
        let mut family = Family::histogram("timems", "Times.");
        family.times(&[("a", "b")], &Times { buckets: vec![(0.5, 1), (1.0, 2)], count: 3, sum: 4.5 });
        families.add(family);
        let mut family = Family::summary("waitms", "Waits.");
        family.sum(&[("a", "b")], [(0.5, 1.0), (0.999, f64::NAN)], 3, 4.5);
        families.add(family);
        families.also("requests_total", "requestspersec");
        families.also("nothing_total", "left_out");
        let text = families.text();
        let expected = "# HELP free_bytes Bytes.\n# TYPE free_bytes gauge\nfree_bytes 3\n\
             # HELP requests_total Of a \"kind\".\n# TYPE requests_total counter\n\
             requests_total{request=\"Pro\\\"duce\\n\"} 7\n\
             # HELP timems Times.\n# TYPE timems histogram\n\
             timems_bucket{a=\"b\",le=\"0.5\"} 1\ntimems_bucket{a=\"b\",le=\"1\"} 2\n\
             timems_bucket{a=\"b\",le=\"+Inf\"} 3\ntimems_sum{a=\"b\"} 4.5\ntimems_count{a=\"b\"} 3\n\
             # HELP waitms Waits.\n# TYPE waitms summary\n\
             waitms{a=\"b\",quantile=\"0.5\"} 1\nwaitms{a=\"b\",quantile=\"0.999\"} NaN\n\
             waitms_sum{a=\"b\"} 4.5\nwaitms_count{a=\"b\"} 3\n\
             # HELP requestspersec The same as requests_total.\n# TYPE requestspersec gauge\n\
             requestspersec{request=\"Pro\\\"duce\\n\"} 7\n";
        assert_eq!(text, expected);
    }
}
