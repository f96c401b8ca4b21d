//! Rust source cut into code, comments and string literals; just enough for the checks.
//!
//! It knows strings (plain, raw, of bytes), characters against lifetimes, and nested comments. It
//! never fails: what is not Rust comes out as code.

/// A piece of a source file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Neither of the others.
    Code(&'a str),
    /// With its slashes.
    Comment(&'a str),
    /// What is between the quotes, escapes as written.
    Text(&'a str),
}

/// Cuts a source file, from beginning to end.
pub(crate) fn pieces(source: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = source;
    while !rest.is_empty() {
        let (code, special) = rest.split_at(next_special(rest));
        if !code.is_empty() {
            pieces.push(Piece::Code(code));
        }
        let (piece, behind) = take_special(special);
        pieces.extend(piece);
        rest = behind;
    }
    pieces
}

/// The source with everything but code blanked out; lines stay where they are.
pub(crate) fn only_code(source: &str) -> String {
    blank_out(source, |piece| matches!(piece, Piece::Comment(_) | Piece::Text(_)))
}

/// The source with string literals and their quotes taken out; lines stay where they are.
pub(crate) fn without_texts(source: &str) -> String {
    blank_out(source, |piece| matches!(piece, Piece::Text(_)))
}

fn blank_out(source: &str, blank: impl Fn(&Piece<'_>) -> bool) -> String {
    let mut out = String::new();
    for piece in pieces(source) {
        let is_blank = blank(&piece);
        let (Piece::Code(text) | Piece::Comment(text) | Piece::Text(text)) = piece;
        if is_blank {
            out.push_str(&text.replace(|c: char| c != '\n', " "));
        } else {
            out.push_str(text);
        }
    }
    out
}

/// All string literals.
pub(crate) fn texts(source: &str) -> impl Iterator<Item = &str> {
    pieces(source).into_iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text),
        Piece::Code(_) | Piece::Comment(_) => None,
    })
}

/// Where the next comment, string or character begins.
fn next_special(source: &str) -> usize {
    let bytes = source.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let found = match byte {
            b'"' | b'\'' => true,
            b'/' => matches!(bytes.get(at + 1), Some(b'/' | b'*')),
            b'r' => raw_hashes(&source[at..]).is_some() && !follows_word(bytes, at),
            _ => false,
        };
        if found {
            return at;
        }
    }
    bytes.len()
}

/// True if the byte at `at` continues a word; the `b` of `br"…"` does not count.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    match at.checked_sub(1).and_then(|before| bytes.get(before)) {
        Some(b'b' | b'c') => at >= 2 && word(&bytes[at - 2]),
        Some(before) => word(before),
        None => false,
    }
}

/// Of `r##"…`: how many hashes.
fn raw_hashes(source: &str) -> Option<usize> {
    let behind = source.strip_prefix('r')?;
    let hashes = behind.bytes().take_while(|b| *b == b'#').count();
    behind[hashes..].starts_with('"').then_some(hashes)
}

fn take_special(source: &str) -> (Option<Piece<'_>>, &str) {
    if source.starts_with("//") {
        let end = source.find('\n').unwrap_or(source.len());
        return (Some(Piece::Comment(&source[..end])), &source[end..]);
    }
    if source.starts_with("/*") {
        let end = block_end(source);
        return (Some(Piece::Comment(&source[..end])), &source[end..]);
    }
    if let Some(hashes) = raw_hashes(source) {
        let begin = hashes + 2;
        let close = format!("\"{}", "#".repeat(hashes));
        let length = source[begin..].find(&close).unwrap_or(source.len() - begin);
        let behind = (begin + length + close.len()).min(source.len());
        return (Some(Piece::Text(&source[begin..begin + length])), &source[behind..]);
    }
    if source.starts_with('"') {
        let end = quote_end(source);
        return (Some(Piece::Text(&source[1..end])), &source[(end + 1).min(source.len())..]);
    }
    if let Some(length) = character(source) {
        return (None, &source[length..]);
    }
    let first = source.chars().next().map_or(0, char::len_utf8);
    (None, &source[first..])
}

/// Where the quote that opens `source` is closed.
fn quote_end(source: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in source.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    source.len()
}

/// The length of the character literal that opens `source`; a lifetime is none.
fn character(source: &str) -> Option<usize> {
    let inner = source.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let first = escape.chars().next()?.len_utf8();
        return Some(escape[first..].find('\'')? + first + 3);
    }
    let first = inner.chars().next()?.len_utf8();
    inner[first..].starts_with('\'').then_some(first + 2)
}

fn block_end(source: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < source.len() {
        let rest = &source.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    source.len()
}

#[test]
fn code_comments_and_texts_are_told_apart() {
    let source =
        "a(\"x // \\\" y\"); // \"no\"\nb /* c /* d */ e */ br#\"raw \" text\"# 'q' 'l: '\\''";
    let found: Vec<&str> = texts(source).collect();
    assert_eq!(found, ["x // \\\" y", "raw \" text"]);
    let code = only_code(source);
    assert!(code.contains("a(") && code.contains("b ") && code.contains("l: "), "{code}");
    assert!(!code.contains("no") && !code.contains('d'), "{code}");
    assert_eq!(code.matches('\n').count(), source.matches('\n').count());
}

#[test]
fn what_is_not_rust_does_no_harm() {
    for source in ["\"open", "/* open", "'", "r#\"open", "'\\", "r", "ä'ä'\"ä"] {
        let _any = pieces(source);
    }
}
