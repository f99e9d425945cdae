//! The table: medians per variant, and ratios that read "so many times better" whichever way better is.
//!
//! Never: a ratio between figures of different rows.

use std::fmt::Write;

use crate::{machine::Limits, rows::Figure};

/// The columns: broker and flushing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    GracchusSynced,
    GracchusOs,
    KafkaSynced,
    KafkaOs,
}

impl Variant {
    pub(crate) const ALL: [Variant; 4] =
        [Variant::GracchusSynced, Variant::KafkaOs, Variant::GracchusOs, Variant::KafkaSynced];

    pub(crate) fn is_gracchus(self) -> bool {
        matches!(self, Variant::GracchusSynced | Variant::GracchusOs)
    }

    pub(crate) fn is_synced(self) -> bool {
        matches!(self, Variant::GracchusSynced | Variant::KafkaSynced)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Variant::GracchusSynced => "Gracchus synced",
            Variant::GracchusOs => "Gracchus OS",
            Variant::KafkaSynced => "Kafka synced",
            Variant::KafkaOs => "Kafka OS",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) row: String,
    pub(crate) figure: Figure,
    pub(crate) cells: Vec<(Variant, f64)>,
}

/// Medians of repeated runs, figure by figure. `runs`: variant, then one list of figures per run.
pub(crate) fn lines(row: &str, runs: &[(Variant, Vec<Vec<Figure>>)]) -> Vec<Line> {
    let Some(first) = runs.iter().find_map(|(_, repeats)| repeats.first()) else {
        return Vec::new();
    };
    first
        .iter()
        .enumerate()
        .map(|(index, figure)| {
            let cells = runs
                .iter()
                .filter(|(_, repeats)| !repeats.is_empty())
                .map(|(variant, repeats)| {
                    (*variant, median(repeats.iter().map(|figures| figures[index].value).collect()))
                })
                .collect();
            Line { row: row.to_owned(), figure: figure.clone(), cells }
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Line {
    fn cell(&self, variant: Variant) -> Option<f64> {
        self.cells.iter().find(|(other, _)| *other == variant).map(|(_, value)| *value)
    }

    /// How many times better `ours` is than `theirs`.
    fn times_better(&self, ours: Variant, theirs: Variant) -> Option<f64> {
        let (ours, theirs) = (self.cell(ours)?, self.cell(theirs)?);
        Some(if self.figure.more_is_better { ours / theirs } else { theirs / ours })
    }
}

/// The whole table as markdown.
pub(crate) fn markdown(lines: &[Line], limits: &Limits, notes: &str) -> String {
    use Variant::*;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Machine: loopback {:.1} GB/s; page cache {:.1} GB/s; 64 KiB write + fdatasync {:.2} ms (p99 {:.2} ms); \
         16 × 64 KiB + fdatasync {:.0} MB/s.\n{notes}\n",
        limits.loopback_mb_s / 1e3,
        limits.page_cache_mb_s / 1e3,
        limits.sync_ms.0,
        limits.sync_ms.1,
        limits.synced_mb_s
    );
    text.push_str("| row | figure |");
    for variant in [GracchusSynced, GracchusOs, KafkaSynced, KafkaOs] {
        let _ = write!(text, " {} |", variant.title());
    }
    text.push_str(" synced ÷ Kafka OS | OS ÷ Kafka OS | synced ÷ Kafka synced |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
    let mut last = "";
    for line in lines {
        let title = if line.row == last { "" } else { &line.row };
        last = &line.row;
        let _ = write!(text, "| {title} | {} |", line.figure.name);
        for variant in [GracchusSynced, GracchusOs, KafkaSynced, KafkaOs] {
            let _ = write!(text, " {} |", line.cell(variant).map_or_else(|| "–".into(), number));
        }
        for (ours, theirs) in
            [(GracchusSynced, KafkaOs), (GracchusOs, KafkaOs), (GracchusSynced, KafkaSynced)]
        {
            let ratio = line.times_better(ours, theirs).filter(|ratio| ratio.is_finite());
            let _ = write!(text, " {} |", ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}×")));
        }
        text.push('\n');
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64, more_is_better: bool) -> Vec<Figure> {
        vec![Figure { name: "x", value, more_is_better }]
    }

    #[test]
    fn cells_are_medians_and_ratios_say_how_much_better() {
        let run = |values: [f64; 3], better| values.map(|value| figures(value, better)).to_vec();
        let more = lines(
            "r",
            &[
                (Variant::GracchusOs, run([900.0, 300.0, 600.0], true)),
                (Variant::KafkaOs, run([200.0, 900.0, 100.0], true)),
            ],
        );
        assert_eq!(more[0].cell(Variant::GracchusOs), Some(600.0));
        assert_eq!(more[0].times_better(Variant::GracchusOs, Variant::KafkaOs), Some(3.0));
        let less = lines(
            "r",
            &[
                (Variant::GracchusOs, run([1.0, 1.0, 1.0], false)),
                (Variant::KafkaOs, run([4.0, 4.0, 4.0], false)),
            ],
        );
        assert_eq!(less[0].times_better(Variant::GracchusOs, Variant::KafkaOs), Some(4.0));
        assert_eq!(less[0].times_better(Variant::GracchusSynced, Variant::KafkaOs), None);
    }
}
