//! Each `unsafe` block and `unsafe impl` says above it why it is sound.

use super::Finding;
use super::source::Source;

pub(super) fn check(path: &str, source: &Source) -> Vec<Finding> {
    source
        .words("unsafe")
        .filter(|&at| is_claim(&source.code[at + "unsafe".len()..]))
        .map(|at| source.line_of(at))
        .filter(|&line| !is_explained(source, line))
        .map(|line| Finding {
            file: path.to_owned(),
            line: line + 1,
            text: "unsafe without a reason: write `// SAFETY: …` above it, why it is sound"
                .to_owned(),
        })
        .collect()
}

/// A block or an impl claims that something holds; an `unsafe fn` or `unsafe trait` asks for it, an
/// `unsafe extern` block and the attribute `unsafe(…)` declare.
fn is_claim(after: &str) -> bool {
    let after = after.trim_start();
    after.starts_with('{') || after.starts_with("impl")
}

/// Looks for the word on the line itself and upwards: over comments, attributes, and the lines of
/// the statement that the block is part of.
fn is_explained(source: &Source, line: usize) -> bool {
    let says = |line: usize| source.comments[line].contains("SAFETY:");
    if says(line) {
        return true;
    }
    let code: Vec<&str> = source.code.split('\n').collect();
    for above in (0..line).rev() {
        if says(above) {
            return true;
        }
        let text = code[above].trim();
        let is_comment = text.is_empty() && !source.comments[above].is_empty();
        if is_comment || text.starts_with("#[") {
            continue;
        }
        if text.is_empty() || text.ends_with([';', '{', '}']) {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use crate::tidy::said;

    fn lines_said(text: &str) -> usize {
        said(&[("relay-userspace/src/x.rs", text)]).len()
    }

    #[test]
    fn a_reason_above_will_do() {
        for text in [
            "// SAFETY: it is sound.\nunsafe { f() }\n",
            "// SAFETY: it is sound\n// in two lines.\nlet a =\n    g(unsafe { f() });\n",
            "// SAFETY: it is sound.\n#[allow(x)]\nunsafe impl Send for A {}\n",
            "let a = unsafe { f() }; // SAFETY: it is sound.\n",
            "/// # Safety\n/// Mind.\nunsafe fn f() {}\nunsafe extern \"C\" {}\n#[unsafe(no_mangle)]\n",
            "// unsafe { }\nlet s = \"unsafe { }\";\n",
        ] {
            assert_eq!(lines_said(text), 0, "{text}");
        }
    }

    #[test]
    fn silence_will_not() {
        for text in [
            "unsafe { f() }\n",
            "// It is sound.\nunsafe { f() }\n",
            "// SAFETY: of the first.\nunsafe { f() };\nunsafe { g() }\n",
            "// SAFETY: far away.\n\nunsafe impl Send for A {}\n",
        ] {
            assert_eq!(lines_said(text), 1, "{text}");
        }
    }
}
