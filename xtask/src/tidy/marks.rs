//! Marks of unfinished work, tests that are left out, and panics in waiting.

use super::Finding;
use super::source::Source;

/// Words in comments that put work off.
const LATER: [&str; 3] = ["TODO", "FIXME", "XXX"];

pub(super) fn check(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |line: usize, text: String| {
        findings.push(Finding { file: path.to_owned(), line: line + 1, text });
    };
    for (line, code) in source.lines() {
        let comment = &source.comments[line];
        if let Some(word) = LATER.iter().find(|word| has_word(comment, word)) {
            say(
                line,
                format!("{word} in a comment: do it now, or open an issue and say nothing here"),
            );
        }
        if code.contains("#[ignore") {
            say(line, "an ignored test cannot fail: make it run, or delete it".to_owned());
        }
        if code.contains(".unwrap()") && !source.line_is_test(line) {
            say(
                line,
                "unwrap outside tests: return the error, or `expect` with the invariant that \
                 makes it impossible"
                    .to_owned(),
            );
        }
    }
    for name in ["todo", "unimplemented"] {
        for at in source.words(name) {
            if source.code[at + name.len()..].starts_with('!') {
                say(source.line_of(at), format!("{name}! in the tree: finish it, or leave it out"));
            }
        }
    }
    findings
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use crate::tidy::said;

    #[test]
    fn each_mark_is_found_where_it_stands() {
        let text = "// TODO: later\nfn f() { todo!() }\n/* a\n FIXME */\nlet a = b().unwrap();\n\
                    #[ignore = \"slow\"]\nfn g() { unimplemented!(\"no\") }\n";
        let said = said(&[("relay-core/src/x.rs", text)]);
        let lines: Vec<&str> = said.iter().map(|line| line.split(':').nth(1).unwrap()).collect();
        assert_eq!(lines, ["1", "2", "4", "5", "6", "7"], "{said:?}");
    }

    #[test]
    fn words_in_strings_and_tests_are_left_alone() {
        let text = "let a = \"TODO .unwrap() #[ignore]\"; // autoTODOlist\nx.unwrap_or(1);\n\
                    #[test]\nfn t() { a.unwrap(); }\nfn todo() {}\n";
        assert_eq!(said(&[("relay-core/src/x.rs", text)]), Vec::<String>::new());
    }
}
