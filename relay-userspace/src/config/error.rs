//! What is wrong in a configuration file, said so that it can be put right: file, line, column,
//! key, value and remedy.

use std::{fmt, ops::Range, path::PathBuf};

/// One thing wrong in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// Counted from one; zero when the trouble is with the file as a whole.
    pub line: usize,
    /// Characters from the start of the line, counted from one.
    pub column: usize,
    pub key: String,
    /// The value as written; empty where a value is missing.
    pub value: String,
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}", self.key)?;
            if !self.value.is_empty() {
                write!(f, " = {:?}", self.value)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.problem)
    }
}

/// Everything wrong in one file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A file's text, to turn byte offsets into lines and columns.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: PathBuf,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn error(
        &self,
        span: Option<Range<usize>>,
        key: &str,
        value: &str,
        problem: impl Into<String>,
    ) -> ConfigError {
        let (line, column) = span.map_or((0, 0), |span| self.line_and_column(span.start));
        ConfigError {
            file: self.file.clone(),
            line,
            column,
            key: key.into(),
            value: value.into(),
            problem: problem.into(),
        }
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
