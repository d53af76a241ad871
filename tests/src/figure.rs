//! Figures with their spread, each beside what it is compared with, and tables of them for people
//! and for programs.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// One figure as it came out, round by round. Rounds of all sides of a comparison are interleaved,
/// so that those of the same number met the same machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// Nothing was measured.
    pub(crate) fn spread(&self) -> Result<Spread> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (sorted.first(), sorted.last());
        let (&min, &max) = min.zip(max).context("nothing was measured")?;
        Ok(Spread { median: sorted[sorted.len() / 2], min, max })
    }

    /// Joins the same rounds of two sides.
    ///
    /// # Errors
    /// They had different rounds.
    pub(crate) fn with(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Result<Self> {
        ensure!(self.0.len() == other.0.len(), "the two sides had different rounds");
        Ok(Self(self.0.iter().zip(&other.0).map(|(&a, &b)| join(a, b)).collect()))
    }

    /// # Errors
    /// As [`Self::with`].
    pub(crate) fn above(&self, base: &Self) -> Result<Self> {
        self.with(base, |figure, base| figure - base)
    }

    /// # Errors
    /// As [`Self::with`].
    pub(crate) fn times(&self, base: &Self) -> Result<Self> {
        self.with(base, |figure, base| figure / base)
    }
}

impl FromIterator<f64> for Rounds {
    fn from_iter<T: IntoIterator<Item = f64>>(figures: T) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// How a figure came out over its rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max } = *self;
        let digits = match [median, min, max].into_iter().fold(0.0, |most, x| x.abs().max(most)) {
            large if large >= 100.0 => 0,
            middle if middle >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{median:.digits$} [{min:.digits$}..{max:.digits$}]")
    }
}

/// A figure set against another one.
#[derive(Clone, Debug)]
pub(crate) struct Against {
    /// What it says, such as "above empty lists" or "times xdp-filter's miss".
    what: String,
    figure: Spread,
    /// What the median may be at most, or at least.
    bar: Option<Bar>,
}

/// What was asked for. A figure that misses it is a figure all the same: nothing fails by time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    fn holds(self, figure: Spread) -> bool {
        match self {
            Self::AtMost(limit) => figure.median <= limit,
            Self::AtLeast(limit) => figure.median >= limit,
        }
    }

    fn write(self, figure: Spread, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds(figure) { "holds" } else { "MISSED" };
        write!(f, " (bar {}: {:.2}, {verdict})", self.limit(), figure.median)
    }

    fn limit(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }
}

/// One line of a table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    name: String,
    figure: Spread,
    /// What is asked of the figure itself.
    bar: Option<Bar>,
    against: Vec<Against>,
}

impl Line {
    /// # Errors
    /// Nothing was measured.
    pub(crate) fn new(name: impl Into<String>, figure: &Rounds) -> Result<Self> {
        Ok(Self { name: name.into(), figure: figure.spread()?, bar: None, against: Vec::new() })
    }

    pub(crate) fn bar(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    /// Sets the figure against another, perhaps with a bar.
    ///
    /// # Errors
    /// Nothing was measured.
    pub(crate) fn against(
        mut self,
        what: impl Into<String>,
        figure: &Rounds,
        bar: Option<Bar>,
    ) -> Result<Self> {
        self.against.push(Against { what: what.into(), figure: figure.spread()?, bar });
        Ok(self)
    }
}

/// Figures of one unit.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// A word for programs.
    pub(crate) name: &'static str,
    /// What is measured and how, in sentences.
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
}

impl Table {
    pub(crate) fn json(&self) -> Value {
        let against = |against: &Against| {
            json!({
                "what": against.what,
                "figure": against.figure.json(),
                "bar": against.bar.map(Bar::limit),
                "holds": against.bar.map(|bar| bar.holds(against.figure)),
            })
        };
        let line = |line: &Line| {
            json!({
                "name": line.name,
                "figure": line.figure.json(),
                "bar": line.bar.map(Bar::limit),
                "holds": line.bar.map(|bar| bar.holds(line.figure)),
                "against": line.against.iter().map(against).collect::<Vec<_>>(),
            })
        };
        json!({
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.figure, self.what)?;
        match self.bar {
            None => Ok(()),
            Some(bar) => bar.write(self.figure, f),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  {}, median [min..max]", self.title, self.unit)?;
        let width = self.lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
        for line in &self.lines {
            let figure = line.figure.to_string();
            write!(f, "  {:width$}  {figure:>24}", line.name)?;
            if let Some(bar) = line.bar {
                bar.write(line.figure, f)?;
            }
            for (index, against) in line.against.iter().enumerate() {
                let before = if index == 0 { "   " } else { "; " };
                write!(f, "{before}{against}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(figures: &[f64]) -> Rounds {
        figures.iter().copied().collect()
    }

    #[test]
    fn differences_are_taken_round_by_round() {
        // A machine that slowed down between the rounds: the difference is the same.
        let (ours, base) = (rounds(&[110.0, 220.0]), rounds(&[100.0, 210.0]));
        let above = ours.above(&base).unwrap().spread().unwrap();
        assert_eq!(above, Spread { median: 10.0, min: 10.0, max: 10.0 });
        assert!(ours.above(&rounds(&[1.0])).is_err());
        assert!(rounds(&[]).spread().is_err());
    }

    #[test]
    fn a_bar_is_printed_beside_its_figure() {
        let line = Line::new("honest", &rounds(&[20.0, 21.0, 22.0])).unwrap();
        let missed = line.clone().against("above", &rounds(&[16.0]), Some(Bar::AtMost(15.0)));
        let held = line.against("above", &rounds(&[9.0]), Some(Bar::AtMost(15.0)));
        let table =
            |line| Table { name: "t", title: "T".to_owned(), unit: "ns", lines: vec![line] };
        let (missed, held) = (table(missed.unwrap()), table(held.unwrap()));
        assert!(missed.to_string().contains("(bar 15: 16.00, MISSED)"), "{missed}");
        assert!(held.to_string().contains("21.0 [20.0..22.0]"), "{held}");
        assert!(held.to_string().contains("(bar 15: 9.00, holds)"), "{held}");
        assert_eq!(held.json()["lines"][0]["against"][0]["holds"], true);
    }
}
