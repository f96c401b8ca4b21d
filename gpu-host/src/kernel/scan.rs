//! What is looked at in the text of a kernel before the compiler sees it.
//!
//! The compiler evaluates constants and walks types by their parts, so that a few lines can cost
//! it any amount of time and memory: `const b = array(a, a); const c = array(b, b); …` doubles with
//! each, structs of structs likewise, and operands of a wrong type are filled in element by element
//! before they are refused. This keeps true, without knowing more of the language than its words:
//!
//! - With every constant, struct and alias written out where it is named, the source is not longer
//!   than `EXPANDED_WORDS_MAX`, and none of them is longer than `DECLARED_WORDS_MAX`.
//! - No array is made by a constructor without arguments: all arrays in constants are written out.
//!
//! Words are separated as the compiler does it, comments included. Where a word is taken for the
//! name of a constant and is not, it counts too much, never too little.
//!
//! Leaves to the compiler: whether any of it is WGSL.

use std::collections::HashMap;

use super::rejected::Rejected;

/// Words and marks of the source with all declarations written out.
const EXPANDED_WORDS_MAX: u64 = 32 * 1024;
/// Words and marks of one declaration, likewise.
const DECLARED_WORDS_MAX: u64 = 8 * 1024;

/// What begins a declaration of something that is the same at all its uses.
const DECLARING: [&str; 4] = ["const", "override", "alias", "struct"];

/// Checks the source. Takes time and memory in proportion to its length.
pub(super) fn check(source: &str) -> Result<(), Rejected> {
    let tokens = tokens(source);
    let mut declared = Declared::of(&tokens);
    let mut words = 0_u64;
    for at in 0..tokens.len() {
        words = words.saturating_add(declared.weigh_token(&tokens, at)?.words);
    }
    most("words with every declaration written out", words, EXPANDED_WORDS_MAX)?;
    for at in 0..tokens.len() {
        if declared.makes_zero_array(&tokens, at)? {
            let what = "an array is made without its elements; a variable of that type without \
                        an initial value is all zeros";
            return Err(Rejected::unsupported(line(source, tokens[at].start), what));
        }
    }
    Ok(())
}

/// The line of a place in the source.
pub(super) fn line(source: &str, at: usize) -> u32 {
    let before = source.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

pub(super) fn most(what: &'static str, found: u64, limit: u64) -> Result<(), Rejected> {
    if found > limit {
        return Err(Rejected::Limit { what, found, limit });
    }
    Ok(())
}

/// A word, or one character that is none.
#[derive(Clone, Copy)]
struct Token<'s> {
    text: &'s str,
    start: usize,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.chars().next().is_some_and(is_word_part)
    }
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let start = source.len() - rest.len();
        let length = if is_blank(first) {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find(is_line_end).unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else {
            let word = rest.find(|c| !is_word_part(c)).unwrap_or(rest.len());
            let length = word.max(if is_word_part(first) { 0 } else { first.len_utf8() });
            tokens.push(Token { text: &rest[..length], start });
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Bytes of a comment, which may have others within.
fn comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (2, 1_usize);
    while at < bytes.len() && depth > 0 {
        match bytes.get(at..at + 2) {
            Some(b"*/") => (at, depth) = (at + 2, depth - 1),
            Some(b"/*") => (at, depth) = (at + 2, depth + 1),
            _ => at += 1,
        }
    }
    at
}

/// What is not ASCII and no blank is part of a word, or refused by the compiler.
fn is_word_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && !is_blank(c))
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\u{a}'..='\u{d}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    is_line_end(c) || matches!(c, ' ' | '\t' | '\u{200e}' | '\u{200f}')
}

/// What a name stands for.
#[derive(Clone, Copy)]
struct Weight {
    words: u64,
    has_array: bool,
}

/// A name and how far it was followed.
enum Name {
    /// Where its declarations are, as ranges of tokens.
    Fresh(Vec<(usize, usize)>),
    /// Its weight is being found.
    Open,
    Known(Weight),
}

/// The constants, structs and aliases of a source.
struct Declared<'s> {
    names: HashMap<&'s str, Name>,
}

impl<'s> Declared<'s> {
    fn of(tokens: &[Token<'s>]) -> Self {
        let mut names: HashMap<&'s str, Name> = HashMap::new();
        for (at, token) in tokens.iter().enumerate() {
            if !DECLARING.contains(&token.text) {
                continue;
            }
            let end = if token.text == "struct" { "}" } else { ";" };
            // One that does not end is refused by the compiler. Each token is in one at most.
            let ends = |token: &Token<'_>| token.text == end || DECLARING.contains(&token.text);
            let Some(name) = tokens.get(at + 1) else { break };
            let body = &tokens[at + 2..];
            let length = body.iter().position(ends).unwrap_or(body.len());
            let ranges = names.entry(name.text).or_insert_with(|| Name::Fresh(Vec::new()));
            if let Name::Fresh(ranges) = ranges {
                ranges.push((at + 2, at + 2 + length));
            }
        }
        Self { names }
    }

    /// What a token counts: names of members count as a word.
    fn weigh_token(&mut self, tokens: &[Token<'s>], at: usize) -> Result<Weight, Rejected> {
        let one = Weight { words: 1, has_array: tokens[at].text == "array" };
        let is_member = at > 0 && tokens[at - 1].text == ".";
        let is_label = tokens.get(at + 1).is_some_and(|next| next.text == ":");
        if is_member || is_label {
            return Ok(one);
        }
        let weight = self.weigh_name(tokens, tokens[at].text)?;
        Ok(weight.unwrap_or(one))
    }

    /// What a name stands for, if it was declared. As deep as declarations name each other.
    fn weigh_name(&mut self, tokens: &[Token<'s>], name: &str) -> Result<Option<Weight>, Rejected> {
        let Some(known) = self.names.get_mut(name) else { return Ok(None) };
        let ranges = match std::mem::replace(known, Name::Open) {
            Name::Fresh(ranges) => ranges,
            Name::Known(weight) => {
                *known = Name::Known(weight);
                return Ok(Some(weight));
            }
            // Only by declaring a name anew with itself can it be valid.
            Name::Open => {
                let what = format!("{name:?} is declared by itself; use another name");
                return Err(Rejected::unsupported(0, super::rejected::cut(&what)));
            }
        };
        let mut weight = Weight { words: 1, has_array: false };
        for at in ranges.into_iter().flat_map(|(from, to)| from..to) {
            let part = self.weigh_token(tokens, at)?;
            weight.words = weight.words.saturating_add(part.words);
            weight.has_array |= part.has_array;
        }
        most("words of a declaration written out", weight.words, DECLARED_WORDS_MAX)?;
        if let Some(known) = self.names.get_mut(name) {
            *known = Name::Known(weight);
        }
        Ok(Some(weight))
    }

    /// Whether a constructor without arguments begins to end here that makes an array.
    fn makes_zero_array(&mut self, tokens: &[Token<'s>], at: usize) -> Result<bool, Rejected> {
        let text = |at: usize| tokens.get(at).map(|token| token.text);
        if (text(at + 1), text(at + 2)) != (Some("("), Some(")")) {
            return Ok(false);
        }
        if tokens[at].text == ">" {
            return Ok(!is_vector(&tokens[..at]));
        }
        Ok(tokens[at].is_word() && self.weigh_token(tokens, at)?.has_array)
    }
}

/// Whether a list of template arguments that ends behind these tokens is that of a vector or
/// matrix.
fn is_vector(tokens: &[Token<'_>]) -> bool {
    let (mut lists, mut brackets) = (1_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate().rev() {
        match token.text {
            ")" | "]" => brackets += 1,
            "(" | "[" if brackets == 0 => return false,
            "(" | "[" => brackets -= 1,
            _ if brackets > 0 => {}
            ">" => lists += 1,
            "<" => lists -= 1,
            ";" | "{" | "}" | "=" => return false,
            _ => {}
        }
        if lists == 0 {
            let name = at.checked_sub(1).map_or("", |before| tokens[before].text);
            return matches!(name.get(..3), Some("vec" | "mat")) && name.len() <= 6;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_are_separated_as_the_compiler_does() {
        assert_eq!(texts("a+b1 _c//x\u{2028}d/*e/*f*/g*/h"), ["a", "+", "b1", "_c", "d", "h"]);
        assert_eq!(texts("é\u{85}1.5f >= /* never closed"), ["é", "1", ".", "5f", ">", "="]);
    }

    #[test]
    fn declarations_that_double_are_refused() {
        let doubling = |count: usize| -> String {
            let more = (1..count).map(|n| format!("const c{n} = array(c{0}, c{0});", n - 1));
            std::iter::once("const c0 = array(1, 1);".to_owned()).chain(more).collect()
        };
        assert_eq!(check(&doubling(6)), Ok(()));
        assert!(matches!(check(&doubling(30)), Err(Rejected::Limit { .. })));
        // Uses of one that is just short enough.
        let many = doubling(10) + &"const y: f32 = c9[0];".repeat(200);
        assert!(matches!(check(&many), Err(Rejected::Limit { .. })));
        let structs: String =
            (1..40).map(|n| format!("struct S{n} {{ a: S{0}, b: S{0} }}", n - 1)).collect();
        assert!(matches!(check(&structs), Err(Rejected::Limit { .. })));
    }

    #[test]
    fn declarations_may_come_after_their_uses() {
        let backwards = (0..40).map(|n| format!("const c{n} = array(c{0}, c{0});", n + 1));
        let source: String = backwards.collect();
        assert!(matches!(check(&source), Err(Rejected::Limit { .. })));
    }

    #[test]
    fn a_name_that_stands_for_itself_is_refused() {
        let source = "fn f() { const a = array(1, 1); { const a = array(a, a); } }";
        assert!(matches!(check(source), Err(Rejected::Unsupported { .. })));
        assert_eq!(
            check("struct P { n: u32 } const n = 3; fn f(p: P) { let q = P(n).n; }"),
            Ok(())
        );
    }

    #[test]
    fn arrays_are_not_made_of_nothing() {
        for makes in [
            "const z = array<f32, 4>();",
            "const z = array<vec4<f32>, 4>();",
            "alias A = array<f32, 4>; const z = A();",
            "alias A = array<f32, 4>; struct S { a: A } const z = S();",
            "const z = array<array<f32, 4>, 4> ( /* */ );",
            "const z = array<i32, select(1, 2, vec2 < 3)>();",
        ] {
            assert!(matches!(check(makes), Err(Rejected::Unsupported { .. })), "{makes}");
        }
        for fine in [
            "const z = vec3<f32>();",
            "const z = mat4x4<f32>();",
            "struct S { a: f32 } const z = S();",
            "fn f() { g(); var a: array<vec4<f32>, 4>; a[0] = vec4<f32>(); }",
            "const z = array<f32, 2>(1, 2);",
        ] {
            assert_eq!(check(fine), Ok(()), "{fine}");
        }
    }
}
