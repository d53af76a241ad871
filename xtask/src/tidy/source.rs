//! A Rust file with code and comments told apart, and its test code and functions found.

/// One file. Lines are numbered from 0 here, and from 1 in findings.
#[derive(Debug)]
pub(super) struct Source {
    /// The file as it is.
    text: String,
    /// The code, with comments and the contents of strings and characters blanked; each byte where
    /// it is in the file.
    pub(super) code: String,
    /// The comments of each line.
    pub(super) comments: Vec<String>,
    /// Whether all of it is test code.
    pub(super) is_test: bool,
    /// Whether each line is in an item for tests.
    test_lines: Vec<bool>,
}

/// A function, with the lines from its `fn` to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let is_test = path.split('/').any(|part| part == "tests" || part == "benches")
            || path.ends_with("/tests.rs")
            || code.contains("#![cfg(test)]");
        let text = text.to_owned();
        let mut source = Self { text, code, comments, is_test, test_lines: Vec::new() };
        source.test_lines = vec![false; source.comments.len()];
        for (first, last) in source.test_items() {
            source.test_lines[first..=last].fill(true);
        }
        source
    }

    /// The lines of code, numbered from 0.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.split('\n').enumerate()
    }

    pub(super) fn line_is_test(&self, line: usize) -> bool {
        self.is_test || self.test_lines.get(line).copied().unwrap_or(false)
    }

    /// The number of the line that holds the byte at `offset` of the code.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.code[..offset].bytes().filter(|&byte| byte == b'\n').count()
    }

    /// Where `word` stands in the code as a word of its own.
    pub(super) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_word = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let bytes = self.code.as_bytes();
        self.code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            !is_word(before) && !is_word(bytes.get(at + word.len()))
        })
    }

    /// First and last lines of the items under `#[cfg(test)]` and `#[test]`.
    fn test_items(&self) -> Vec<(usize, usize)> {
        let attributes = ["#[cfg(test)]", "#[cfg(all(test", "#[test]", "#[tokio::test"];
        attributes
            .iter()
            .flat_map(|attribute| self.code.match_indices(attribute))
            .map(|(at, _)| (self.line_of(at), self.line_of(item_end(&self.code, at))))
            .collect()
    }

    /// Files that this one, at `path`, declares as `#[cfg(test)] mod name;`.
    pub(super) fn test_files(&self, path: &str) -> Vec<String> {
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let children = match file.trim_end_matches(".rs") {
            "mod" | "lib" | "main" => directory.to_owned(),
            stem => format!("{directory}/{stem}"),
        };
        let mut files = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(test)]") {
            let end = item_end(&self.code, at);
            let item = &self.code[at..end];
            let Some(name) = item.rsplit_once("mod ").map(|(_, name)| name.trim()) else {
                continue;
            };
            if name.contains('{') {
                continue;
            }
            // The name of a file is in a string, so it is read from the text.
            match self.text[at..end]
                .split_once("#[path = \"")
                .and_then(|(_, rest)| rest.split_once('"'))
            {
                Some((file, _)) => files.push(format!("{directory}/{file}")),
                None => files
                    .extend([format!("{children}/{name}.rs"), format!("{children}/{name}/mod.rs")]),
            }
        }
        files
    }

    /// Every function with a body, those inside others included.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in self.words("fn") {
            let rest = &self.code[at + 2..];
            let name: String = rest
                .trim_start()
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            let end = item_end(&self.code, at);
            // Without a name it is the type of a pointer; without a brace, only declared.
            if !name.is_empty() && self.code.as_bytes().get(end) == Some(&b'}') {
                functions.push(Function { name, first: self.line_of(at), last: self.line_of(end) });
            }
        }
        functions
    }
}

/// The offset of the `;` or the closing brace that ends the item which begins at `start`.
fn item_end(code: &str, start: usize) -> usize {
    let mut nested = 0usize;
    let mut braces = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested = nested.saturating_sub(1),
            b'{' => braces += 1,
            b'}' if braces <= 1 => return at,
            b'}' => braces -= 1,
            b';' if nested == 0 && braces == 0 => return at,
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

/// Tells code from comments. The code keeps its lines and columns.
fn split(text: &str) -> (String, Vec<String>) {
    let mut out =
        Splitter { code: String::with_capacity(text.len()), comments: vec![String::new()] };
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let before = out.code.bytes().next_back();
        let glued = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let length = if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            out.comment(&rest[..length]);
            length
        } else if rest.starts_with("/*") {
            let length = block_comment(rest);
            out.comment(&rest[..length]);
            length
        } else if let Some(length) = (!glued).then(|| raw_string(rest)).flatten() {
            out.blank(&rest[..length]);
            length
        } else if letter == '"' {
            let length = quoted(rest, '"');
            out.blank(&rest[..length]);
            length
        } else if let Some(length) = character(rest) {
            out.blank(&rest[..length]);
            length
        } else {
            out.code(letter);
            letter.len_utf8()
        };
        rest = &rest[length..];
    }
    (out.code, out.comments)
}

struct Splitter {
    code: String,
    comments: Vec<String>,
}

impl Splitter {
    fn code(&mut self, letter: char) {
        self.code.push(letter);
        if letter == '\n' {
            self.comments.push(String::new());
        }
    }

    /// As many spaces as the letter has bytes, so that offsets stay true.
    fn space(&mut self, letter: char) {
        if letter == '\n' {
            self.code(letter);
        } else {
            self.code.extend(std::iter::repeat_n(' ', letter.len_utf8()));
        }
    }

    /// Spaces for the contents of a string, between quotes.
    fn blank(&mut self, text: &str) {
        for (at, letter) in text.char_indices() {
            let edge = at == 0 || at + letter.len_utf8() == text.len();
            if edge { self.code('"') } else { self.space(letter) }
        }
    }

    fn comment(&mut self, text: &str) {
        for letter in text.chars() {
            if letter != '\n'
                && let Some(line) = self.comments.last_mut()
            {
                line.push(letter);
            }
            self.space(letter);
        }
    }
}

/// The length of the block comment at the start; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the raw string (r"…", br#"…"#, cr"…") at the start.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#']))
    })?;
    let hashes = text[prefix.len()..].bytes().take_while(|&byte| byte == b'#').count();
    let body = prefix.len() + hashes;
    if !text[body..].starts_with('"') {
        return None; // r#name
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text[body + 1..].find(&end).map(|at| body + 1 + at + end.len());
    Some(length.unwrap_or(text.len()))
}

/// The length of the quoted text at the start, backslashes minded.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = true;
        } else if letter == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The length of the character literal at the start; nothing for a lifetime.
fn character(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let first = rest.chars().next()?;
    if first == '\\' {
        return Some(quoted(text, '\''));
    }
    rest[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("a/src/x.rs", text).code
    }

    #[test]
    fn strings_characters_and_comments_are_not_code() {
        let blanked = [
            "\"unsafe { // \\\" /* \"",
            "r#\"a \" unsafe\"#",
            "br\"unsafe\"",
            "'{'",
            "'\\''",
            "'\\u{7b}'",
            "/* unsafe /* { */ } */",
        ];
        for text in blanked {
            let code = code(&format!("f({text}); g"));
            assert!(!code.contains("unsafe") && !code.contains('{'), "{text}: {code}");
            assert!(code.starts_with("f(") && code.ends_with("); g"), "{text}: {code}");
        }
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        let text = "fn f<'a>(x: &'a str, r#type: u8) -> &'static str { x }";
        assert_eq!(code(text), text);
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "let a = \"1\nß\"; // ä one\n/* two\nthree */ b\n";
        let source = Source::new("a/src/x.rs", text);
        assert_eq!(source.code.find('b'), text.find('b'));
        assert_eq!(source.code.matches('\n').count(), 4);
        assert_eq!(source.comments[1], "// ä one");
        assert_eq!(source.comments[2], "/* two");
        assert_eq!(source.comments[3], "three */");
        assert_eq!(source.lines().nth(3).unwrap().1.trim(), "b");
    }

    #[test]
    fn test_code_is_told_from_the_rest() {
        let source = Source::new(
            "a/src/x.rs",
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  fn b() { {} }\n}\nfn c() {}\n\
             #[cfg(test)]\nuse d;\nfn e() {}\n",
        );
        let test: Vec<usize> = (0..10).filter(|&line| source.line_is_test(line)).collect();
        assert_eq!(test, [1, 2, 3, 4, 5, 7, 8]);
    }

    #[test]
    fn functions_end_at_their_brace() {
        let source = Source::new(
            "a/src/x.rs",
            "trait T { fn declared(&self, x: [u8; 4]); }\nfn a<F: Fn()>(f: fn(u8) -> u8)\n\
             where F: Send,\n{\n  if b { }\n}\nasync fn c() { fn d() {} }\n",
        );
        let found: Vec<_> =
            source.functions().into_iter().map(|f| (f.name, f.first, f.last)).collect();
        let expected =
            [("a", 1, 5), ("c", 6, 6), ("d", 6, 6)].map(|(name, a, b)| (name.to_owned(), a, b));
        assert_eq!(found, expected);
    }

    #[test]
    fn words_are_whole() {
        let source = Source::new("a/src/x.rs", "aya aya_log my_aya aya::x crate::aya");
        assert_eq!(source.words("aya").collect::<Vec<_>>(), [0, 19, 33]);
    }
}
