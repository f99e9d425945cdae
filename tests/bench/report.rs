//! The table: medians per variant, and ratios that read "so many times better" whichever way better is.
//!
//! Never: a ratio between figures of different rows.

use std::fmt::Write;

use crate::{machine::Limits, rows::Figure};

/// The columns: broker, flushing, and for some rows how ours looks into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    GracchusSynced,
    GracchusOs,
    RelaxedSynced,
    RelaxedOs,
    KafkaSynced,
    KafkaOs,
}

impl Variant {
    pub(crate) const ALL: [Variant; 6] = [
        Variant::GracchusSynced,
        Variant::KafkaOs,
        Variant::RelaxedSynced,
        Variant::GracchusOs,
        Variant::KafkaSynced,
        Variant::RelaxedOs,
    ];

    pub(crate) fn is_gracchus(self) -> bool {
        !matches!(self, Variant::KafkaSynced | Variant::KafkaOs)
    }

    pub(crate) fn is_synced(self) -> bool {
        matches!(self, Variant::GracchusSynced | Variant::RelaxedSynced | Variant::KafkaSynced)
    }

    /// Validates less than by default.
    pub(crate) fn is_relaxed(self) -> bool {
        matches!(self, Variant::RelaxedSynced | Variant::RelaxedOs)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Variant::GracchusSynced => "Gracchus synced",
            Variant::GracchusOs => "Gracchus OS",
            Variant::RelaxedSynced => "relaxed synced",
            Variant::RelaxedOs => "relaxed OS",
            Variant::KafkaSynced => "Kafka synced",
            Variant::KafkaOs => "Kafka OS",
        }
    }
}

/// What a table shows: columns, and ratios between two of them.
struct Layout {
    columns: &'static [Variant],
    ratios: &'static [(Variant, Variant, &'static str)],
}

static USUAL: Layout = Layout {
    columns: &[Variant::GracchusSynced, Variant::GracchusOs, Variant::KafkaSynced, Variant::KafkaOs],
    ratios: &[
        (Variant::GracchusSynced, Variant::KafkaOs, "synced ÷ Kafka OS"),
        (Variant::GracchusOs, Variant::KafkaOs, "OS ÷ Kafka OS"),
        (Variant::GracchusSynced, Variant::KafkaSynced, "synced ÷ Kafka synced"),
    ],
};

/// Where strict and relaxed validation are compared, what is usual above is strict.
static VALIDATION: Layout = Layout {
    columns: &[
        Variant::GracchusOs,
        Variant::RelaxedOs,
        Variant::KafkaOs,
        Variant::GracchusSynced,
        Variant::RelaxedSynced,
        Variant::KafkaSynced,
    ],
    ratios: &[
        (Variant::GracchusOs, Variant::KafkaOs, "OS ÷ Kafka OS"),
        (Variant::RelaxedOs, Variant::KafkaOs, "relaxed OS ÷ Kafka OS"),
        (Variant::GracchusSynced, Variant::KafkaSynced, "synced ÷ Kafka synced"),
        (Variant::RelaxedSynced, Variant::KafkaSynced, "relaxed synced ÷ Kafka synced"),
        (Variant::GracchusOs, Variant::RelaxedOs, "strict ÷ relaxed, OS"),
    ],
};

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The section of its row.
    pub(crate) section: String,
    pub(crate) row: String,
    pub(crate) figure: Figure,
    pub(crate) cells: Vec<(Variant, f64)>,
}

/// Medians of repeated runs, figure by figure. `runs`: variant, then one list of figures per run.
pub(crate) fn lines(section: &str, row: &str, runs: &[(Variant, Vec<Vec<Figure>>)]) -> Vec<Line> {
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
            Line { section: section.to_owned(), row: row.to_owned(), figure: figure.clone(), cells }
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

/// The machine and how it was measured.
pub(crate) fn conditions(limits: &Limits, notes: &str) -> String {
    format!(
        "Machine: loopback {:.1} GB/s; page cache {:.1} GB/s; 64 KiB write + fdatasync {:.2} ms (p99 {:.2} ms); \
         16 × 64 KiB + fdatasync {:.0} MB/s.\n{notes}\n",
        limits.loopback_mb_s / 1e3,
        limits.page_cache_mb_s / 1e3,
        limits.sync_ms.0,
        limits.sync_ms.1,
        limits.synced_mb_s
    )
}

/// The rows of a section as a markdown table.
pub(crate) fn table<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    let lines: Vec<&Line> = lines.into_iter().collect();
    let relaxed = lines.iter().any(|line| line.cells.iter().any(|(variant, _)| variant.is_relaxed()));
    let Layout { columns, ratios } = if relaxed { &VALIDATION } else { &USUAL };
    let titles = columns.iter().map(|variant| variant.title()).chain(ratios.iter().map(|ratio| ratio.2));
    let titles: Vec<&str> = titles.collect();
    let mut text =
        format!("| row | figure | {} |\n|---|---|{}\n", titles.join(" | "), "--:|".repeat(titles.len()));
    let mut last = "";
    for line in lines {
        let title = if line.row == last { "" } else { &line.row };
        last = &line.row;
        let _ = write!(text, "| {title} | {} |", line.figure.name);
        for variant in *columns {
            let _ = write!(text, " {} |", line.cell(*variant).map_or_else(|| "–".into(), number));
        }
        for (ours, theirs, _) in *ratios {
            let ratio = line.times_better(*ours, *theirs).filter(|ratio| ratio.is_finite());
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
            "s",
            "r",
            &[
                (Variant::GracchusOs, run([900.0, 300.0, 600.0], true)),
                (Variant::KafkaOs, run([200.0, 900.0, 100.0], true)),
            ],
        );
        assert_eq!(more[0].cell(Variant::GracchusOs), Some(600.0));
        assert_eq!(more[0].times_better(Variant::GracchusOs, Variant::KafkaOs), Some(3.0));
        let less = lines(
            "s",
            "r",
            &[
                (Variant::GracchusOs, run([1.0, 1.0, 1.0], false)),
                (Variant::KafkaOs, run([4.0, 4.0, 4.0], false)),
            ],
        );
        assert_eq!(less[0].times_better(Variant::GracchusOs, Variant::KafkaOs), Some(4.0));
        let shown = table(&less);
        assert!(shown.contains("| r | x | – | 1.00 | – | 4.00 | – | 4.00× | – |"), "{shown}");
        assert_eq!(less[0].times_better(Variant::GracchusSynced, Variant::KafkaOs), None);
    }
}
