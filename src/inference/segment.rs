//! Cuts a document into segments of at most 32 KiB at places that its bytes alone decide.
//!
//! Deliberately absent: reading, tokens, and a Markdown parser. Lines are judged by their first
//! characters; setext headings, front matter and quoted fences count as ordinary text. The
//! sentence rule is our own, not that of UAX 29: that one ends a sentence at every line end, may
//! look ahead without bound, and would move boundaries with the Unicode tables of a dependency.

use unicode_segmentation::UnicodeSegmentation;

use crate::wire::{Carry, Fence, Syntax};

/// The longest segment, in bytes: what one call of a tokenizer is given, and one job holds. About 30
/// chunks: enough that the short last chunk of each costs little, few enough that the cores of a small
/// device share one document, and that an interrupted job is soon done again.
pub const SEGMENT_BYTES_MAX: usize = 32 * 1024;

/// The longest lead, in bytes; with [`TOKEN_BYTES_MAX`] per token of overlap, 256 tokens reach it.
pub(super) const LEAD_BYTES_MAX: usize = 4096;

/// Bytes reckoned for one token at most: words of natural text stay below, and a run that the
/// tokenizer makes a single unknown token is kept from growing without bound.
pub(super) const TOKEN_BYTES_MAX: usize = 16;

/// Bytes before a forced cut in which a grapheme boundary is sought; longer clusters are no text.
const GRAPHEME_BYTES_SOUGHT: usize = 256;

/// Closing or opening marks passed over beside a sentence end, so that runs of them cost no more.
const MARKS_MAX: usize = 4;

impl Syntax {
    /// The syntax that a file of this extension (without its dot, in any case) most likely has.
    pub fn of_path(extension: Option<&str>) -> Self {
        match extension.unwrap_or_default().to_ascii_lowercase().as_str() {
            "md" | "markdown" | "mdown" | "mkd" | "mdx" | "qmd" | "rmd" => Self::Markdown,
            "rs" | "py" | "pyi" | "c" | "h" | "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" | "js" | "mjs"
            | "cjs" | "jsx" | "ts" | "tsx" | "vue" | "svelte" | "go" | "java" | "kt" | "kts" | "scala"
            | "swift" | "dart" | "cs" | "fs" | "vb" | "rb" | "php" | "pl" | "pm" | "lua" | "r" | "jl"
            | "hs" | "ml" | "mli" | "ex" | "exs" | "erl" | "clj" | "el" | "lisp" | "scm" | "zig" | "nim"
            | "d" | "asm" | "s" | "sh" | "bash" | "zsh" | "fish" | "ps1" | "bat" | "cmd" | "awk" | "sql"
            | "graphql" | "proto" | "toml" | "yaml" | "yml" | "json" | "jsonl" | "ndjson" | "json5"
            | "xml" | "ini" | "cfg" | "conf" | "properties" | "env" | "css" | "scss" | "sass" | "less"
            | "cmake" | "mk" | "gradle" | "tf" | "nix" | "diff" | "patch" | "csv" | "tsv" | "log" => {
                Self::Code
            }
            _ => Self::Plain,
        }
    }
}

/// How well a text can be parted at a place; later ones are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Strength {
    /// No place to cut: within a char, or behind white space.
    Never,
    /// Within a token and a grapheme cluster.
    Char,
    /// Within a token, between grapheme clusters.
    Grapheme,
    /// At white space that lies within a token.
    TokenSpace,
    /// Between tokens, within a grapheme cluster.
    TokenChar,
    /// Between tokens.
    Token,
    /// Between tokens, next to punctuation.
    Punctuation,
    /// At white space within a heading, which is too short to be parted well.
    HeadingWord,
    /// Between lines that belong together, such as a heading and what follows it.
    Joined,
    /// At white space, or between characters of a script that writes none.
    Word,
    /// Between sentences.
    Sentence,
    /// Between lines of code, list items or rows of a table.
    Line,
    /// At a blank line within fenced code.
    FencedParagraph,
    /// At a blank line or at the edge of fenced code.
    Paragraph,
    /// Before a heading or a top-level item of code.
    Section,
}

/// What a line that is not blank is, as far as boundaries ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Prose,
    Heading,
    /// A list item or a row of a table.
    Item,
    FenceOpen,
    FenceClose,
    Fenced,
    /// A line of code that opens an item at the outermost level.
    TopLevel,
    Code,
}

impl Line {
    /// How well the text can be parted before this line, `previous` being the last that was not
    /// blank and `blank` whether blank lines lie between.
    pub(super) fn strength_after(self, previous: Self, blank: bool) -> Strength {
        match (previous, self) {
            (Self::Heading | Self::FenceOpen, _) | (_, Self::FenceClose) => Strength::Joined,
            (_, Self::Heading) => Strength::Section,
            (_, Self::TopLevel) if blank => Strength::Section,
            (Self::FenceClose, _) | (_, Self::FenceOpen) => Strength::Paragraph,
            (_, Self::Fenced) if blank => Strength::FencedParagraph,
            _ if blank => Strength::Paragraph,
            (Self::Prose | Self::Item, Self::Prose) => Strength::Word,
            _ => Strength::Line,
        }
    }

    /// Whether sentences are looked for in the line.
    pub(super) fn has_sentences(self) -> bool {
        matches!(self, Self::Prose | Self::Item)
    }
}

/// Tells what lines are, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    syntax: Syntax,
    carry: Carry,
}

impl Lines {
    pub(super) fn new(syntax: Syntax, carry: Carry) -> Self {
        Self { syntax, carry }
    }

    /// Notes a blank line, which ends a line that was cut.
    pub(super) fn skip_blank(&mut self) {
        self.carry.mid_line = false;
    }

    /// Tells what the next line that is not blank is; `line` may hold its end.
    pub(super) fn classify(&mut self, line: &str) -> Line {
        let whole = !std::mem::take(&mut self.carry.mid_line);
        let trimmed = line.trim_start();
        match self.syntax {
            Syntax::Plain => Line::Prose,
            Syntax::Code if whole && opens_item(line) => Line::TopLevel,
            Syntax::Code => Line::Code,
            Syntax::Markdown => match self.carry.fence {
                Some(fence) if whole && closes_fence(trimmed, fence) => {
                    self.carry.fence = None;
                    Line::FenceClose
                }
                Some(_) => Line::Fenced,
                None if !whole => Line::Prose,
                None => {
                    self.carry.fence = opened_fence(trimmed);
                    if self.carry.fence.is_some() {
                        Line::FenceOpen
                    } else if is_heading(trimmed) && line.len() - trimmed.len() < 4 {
                        Line::Heading
                    } else if is_item(trimmed) {
                        Line::Item
                    } else {
                        Line::Prose
                    }
                }
            },
        }
    }
}

fn opens_item(line: &str) -> bool {
    !line.starts_with(|c: char| c.is_whitespace() || matches!(c, '}' | ')' | ']')) && !line.starts_with("</")
}

/// Fences may be indented by any width, because those in lists are.
fn opened_fence(trimmed: &str) -> Option<Fence> {
    let marker = *trimmed.as_bytes().first().filter(|b| matches!(b, b'`' | b'~'))?;
    let length = marker_run(trimmed, marker);
    let names_it = marker == b'~' || !trimmed[length..].contains('`');
    (length >= 3 && names_it).then(|| Fence { marker, length: u8::try_from(length).unwrap_or(u8::MAX) })
}

fn closes_fence(trimmed: &str, fence: Fence) -> bool {
    if !fence.marker.is_ascii() {
        // Only a forged carry holds such a marker; slicing at its run could split a char.
        return false;
    }
    let length = marker_run(trimmed, fence.marker);
    length >= usize::from(fence.length.max(1)) && trimmed[length..].trim_start().is_empty()
}

fn marker_run(text: &str, marker: u8) -> usize {
    text.bytes().take_while(|&byte| byte == marker).count()
}

fn is_heading(trimmed: &str) -> bool {
    let level = trimmed.bytes().take(7).take_while(|&b| b == b'#').count();
    (1..=6).contains(&level) && trimmed.as_bytes().get(level).is_none_or(u8::is_ascii_whitespace)
}

fn is_item(trimmed: &str) -> bool {
    let bytes = trimmed.as_bytes();
    // CommonMark numbers items with at most nine digits.
    let digits = bytes.iter().take(10).take_while(|b| b.is_ascii_digit()).count();
    let mark = match bytes.get(digits) {
        Some(b'|') if digits == 0 => return true,
        Some(b'-' | b'*' | b'+') => digits == 0,
        Some(b'.' | b')') => (1..=9).contains(&digits),
        _ => false,
    };
    mark && bytes.get(digits + 1).is_none_or(u8::is_ascii_whitespace)
}

/// Length in bytes of the first segment of `window`, and the state after it.
///
/// `window` starts where the last segment ended and holds at least [`SEGMENT_BYTES_MAX`] bytes,
/// rounded down to a char boundary, or all that is left of the document (`at_end`). What lies
/// beyond that many bytes is not looked at, so a longer window gives the same answer. What is left
/// is one segment when it fits; the state after the last one is the default, and only an empty
/// window gives an empty segment. Otherwise the cut follows the strongest boundary in the second
/// half: before a heading or a top-level item, then a blank line, a line end, a sentence end, white
/// space, a grapheme boundary, a char boundary; the last of equal ones.
pub fn cut(window: &str, at_end: bool, syntax: Syntax, carry: Carry) -> (usize, Carry) {
    if window.is_empty() || (at_end && window.len() <= SEGMENT_BYTES_MAX) {
        return (window.len(), Carry::default());
    }
    let view = &window[..window.floor_char_boundary(SEGMENT_BYTES_MAX)];
    let half = view.floor_char_boundary(view.len() / 2);
    let (best, mut rest) = line_cut(view, half, syntax, carry);
    best.unwrap_or_else(|| {
        rest.mid_line = true;
        (inline_cut(view, half), rest)
    })
}

/// The best line start at or after `half` with the state there, and the state behind `view`.
fn line_cut(view: &str, half: usize, syntax: Syntax, carry: Carry) -> (Option<(usize, Carry)>, Carry) {
    let mut lines = Lines::new(syntax, carry);
    // Only Markdown has a state that the first half may change; elsewhere the line before the
    // second half suffices, which tells whether a blank one precedes the first candidate.
    let mut at = match syntax {
        Syntax::Markdown => 0,
        Syntax::Plain | Syntax::Code => {
            let before = view.floor_char_boundary(half.saturating_sub(1));
            view[..before].rfind('\n').map_or(0, |end| end + 1)
        }
    };
    if at > 0 {
        lines.skip_blank();
    }
    let mut best: Option<(Strength, usize, Carry)> = None;
    let mut consider = |strength: Strength, at: usize, carry: Carry| {
        if at >= half.max(1) && best.is_none_or(|(strongest, ..)| strength >= strongest) {
            best = Some((strength, at, carry));
        }
    };
    let (mut previous, mut blank) = (Line::Prose, false);
    for line in view[at..].split_inclusive('\n') {
        if line.chars().all(char::is_whitespace) {
            lines.skip_blank();
            blank = true;
        } else {
            let carry = lines.carry;
            let this = lines.classify(line);
            let strength = this.strength_after(previous, blank);
            consider(strength.max(Strength::Line), at, carry);
            (previous, blank) = (this, false);
        }
        at += line.len();
    }
    if view.ends_with('\n') {
        let strength = match (blank, lines.carry.fence) {
            (false, _) => Strength::Line,
            (true, Some(_)) => Strength::FencedParagraph,
            (true, None) => Strength::Paragraph,
        };
        consider(strength, at, lines.carry);
    }
    (best.map(|(_, at, carry)| (at, carry)), lines.carry)
}

/// Where to cut a `view` without a line end at or after `half`.
fn inline_cut(view: &str, half: usize) -> usize {
    let (mut sentence, mut word) = (None, None);
    let (mut end, mut last) = (half, 'a');
    for (offset, char) in view[half..].char_indices() {
        let at = half + offset;
        if char.is_whitespace() {
            word = Some(at + char.len_utf8());
            continue;
        }
        // Few words end in a mark, so most need no closer look.
        if !last.is_alphanumeric() && ends_sentence(view, end, at) {
            sentence = Some(at);
        }
        (end, last) = (at + char.len_utf8(), char);
    }
    sentence.or(word).unwrap_or_else(|| {
        let from = view.floor_char_boundary(view.len().saturating_sub(GRAPHEME_BYTES_SOUGHT));
        match view[from..].grapheme_indices(true).next_back() {
            Some((offset, _)) if offset > 0 => from + offset,
            _ => view.len(),
        }
    })
}

/// The tail of what stands before a segment that its first chunk may overlap: byte offset in
/// `before` (the text of the previous segment) where the lead starts.
///
/// The lead starts at a word and is at most `min(overlap_tokens * 16, 4096)` bytes long. Where no
/// word starts so near the end it is empty, for half a word would be a false one.
pub fn lead_start(before: &str, overlap_tokens: u32) -> usize {
    let overlap = usize::try_from(overlap_tokens).unwrap_or(usize::MAX);
    let bytes = overlap.saturating_mul(TOKEN_BYTES_MAX).min(LEAD_BYTES_MAX);
    let from = before.ceil_char_boundary(before.len().saturating_sub(bytes));
    let mut parted = before[..from].chars().next_back().is_none_or(char::is_whitespace);
    for (offset, char) in before[from..].char_indices() {
        let space = char.is_whitespace();
        if !space && (parted || is_unspaced(char)) {
            return from + offset;
        }
        parted = space;
    }
    before.len()
}

/// Whether a word may start with this character without white space before it: ideographs and kana
/// that are no marks of length or repetition.
pub(super) fn is_unspaced(char: char) -> bool {
    matches!(char,
        '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Whether a sentence ends at `end`, where a character that is not white space ends, when the next
/// such one starts at `next`. Looks at a bounded number of characters.
pub(super) fn ends_sentence(text: &str, end: usize, next: usize) -> bool {
    let mut head = text[..end].chars();
    let mut last = head.next_back();
    for _ in 0..MARKS_MAX {
        if last.is_some_and(is_closing) {
            last = head.next_back();
        }
    }
    let spaced = next > end;
    let begins = || {
        let mut ahead = text[next..].chars().take(MARKS_MAX + 1).skip_while(|c| is_opening(*c));
        !ahead.next().is_some_and(char::is_lowercase)
    };
    match last {
        Some('。' | '！' | '？' | '｡' | '．') => {
            let follows = text[next..].chars().next();
            spaced || !follows.is_some_and(|c| is_closing(c) || matches!(c, '。' | '！' | '？'))
        }
        Some('!' | '?' | '…' | '؟' | '۔' | '।' | '॥' | '።' | '։') => spaced && begins(),
        Some('.') => spaced && begins() && !is_abbreviated(head.as_str()),
        _ => false,
    }
}

fn is_closing(char: char) -> bool {
    "\"')]}”’»」』）】*_`".contains(char)
}

fn is_opening(char: char) -> bool {
    "\"'([“‘„«¿¡*_`".contains(char)
}

/// Whether the full stop behind `head` marks an initial, a title or an ordinal number rather than
/// the end of a sentence.
fn is_abbreviated(head: &str) -> bool {
    // One character more than the longest word of the list, so that no longer word looks like one.
    let word = head.char_indices().rev().take(5);
    let word = word.take_while(|(_, c)| c.is_alphanumeric() || *c == '.').last();
    let word = word.map_or("", |(at, _)| &head[at..]);
    match word {
        "Mr" | "Mrs" | "Ms" | "Dr" | "Prof" | "St" | "vs" | "Fig" | "No" | "Nr" | "e.g" | "i.e" | "cf"
        | "z.B" | "p.ex" => true,
        _ if word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit()) => !word.is_empty(),
        _ => word.chars().count() == 1 && word.chars().all(char::is_uppercase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts a whole document, checking each segment against the promises.
    fn segments(text: &str, syntax: Syntax) -> Vec<&str> {
        let (mut rest, mut carry, mut found) = (text, Carry::default(), Vec::new());
        while !rest.is_empty() {
            let (length, after) = cut(rest, true, syntax, carry);
            assert!(0 < length && length <= SEGMENT_BYTES_MAX && rest.is_char_boundary(length));
            let (at_end, least) =
                (rest.len() <= SEGMENT_BYTES_MAX, rest.floor_char_boundary(SEGMENT_BYTES_MAX));
            assert_eq!(cut(&rest[..least], at_end, syntax, carry), (length, after), "depends on the window");
            assert!(at_end || length >= SEGMENT_BYTES_MAX / 2 - 4);
            found.push(&rest[..length]);
            (rest, carry) = (&rest[length..], after);
        }
        assert_eq!(found.concat(), text);
        found
    }

    fn documents() -> impl Strategy<Value = String> {
        let fixed =
            "\n|\r\n|# h\n|```\n|~~~~ x\n|- a\n|fn a\n|word |Sentence\\. |\u{301}|👩\u{200d}|漢字。| |é";
        let piece = prop_oneof![3 => fixed, 1 => ".{0,9}"];
        let run = (piece, 1..9000usize).prop_map(|(piece, times)| piece.repeat(times));
        proptest::collection::vec(run, 1..12).prop_map(|runs| runs.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn segments_are_bounded_whole_and_ignorant_of_the_window(text in documents()) {
            for syntax in [Syntax::Plain, Syntax::Markdown, Syntax::Code] {
                segments(&text, syntax);
            }
        }

        #[test]
        fn a_lead_is_short_and_starts_at_a_word(text in any::<String>(), times in 1..99usize, overlap in 0..400u32) {
            let before = text.repeat(times);
            let start = lead_start(&before, overlap);
            let (head, lead) = before.split_at(start);
            prop_assert!(lead.len() <= (overlap as usize * 16).min(4096));
            let parted = head.chars().next_back().is_none_or(char::is_whitespace);
            prop_assert!(lead.chars().next().is_none_or(|c| !c.is_whitespace() && (parted || is_unspaced(c))));
        }
    }

    #[test]
    fn the_strongest_boundary_of_the_second_half_wins() {
        let half = SEGMENT_BYTES_MAX / 2;
        let early = "A line.\n".repeat(half / 8 + 9);
        let late = "Another line. ".repeat(half);
        for (syntax, middle, starts) in [
            (Syntax::Markdown, "\n## Heading\n\nText\n\n", "## Heading"),
            (Syntax::Markdown, "```\n# no heading\n```\n\n", "Another"),
            (Syntax::Plain, "\r\n\r\n# text\n", "# text"),
            (Syntax::Code, "\n\nfn item() {\n\n    body\n\n}\n", "fn item"),
            (Syntax::Plain, "", "Another line. Another"),
        ] {
            let text = [&early, middle, &late].concat();
            assert!(segments(&text, syntax)[1].starts_with(starts), "{syntax:?} {middle:?}");
        }
        assert!(segments(&late, Syntax::Plain)[1].starts_with("Another"));
        assert!(segments(&"e\u{301}".repeat(half), Syntax::Plain)[1].starts_with('e'));
    }

    #[test]
    fn an_open_fence_and_a_cut_line_cross_the_cut() {
        let text = ["~~~~ sh\n", &"# comment\n~~~\n```\n".repeat(9999), "~~~~\n# x\n"].concat();
        let fence = Some(Fence { marker: b'~', length: 4 });
        let (length, carry) = cut(&text, true, Syntax::Markdown, Carry::default());
        assert_eq!(carry, Carry { fence, mid_line: false });
        assert!(text[..length].ends_with('\n'));
        let (_, carry) = cut(&"# ".repeat(99_999), true, Syntax::Markdown, carry);
        assert_eq!(carry, Carry { fence, mid_line: true });
        let mut lines = Lines::new(Syntax::Markdown, carry);
        let kinds = ["~~~~", "~~~~ x", "~~~~~ ", "# x", "1. x", "#x"].map(|line| lines.classify(line));
        use Line::{FenceClose, Fenced, Heading, Item, Prose};
        assert_eq!(kinds, [Fenced, Fenced, FenceClose, Heading, Item, Prose]);
    }

    #[test]
    fn an_extension_tells_the_syntax() {
        let syntaxes = [Some("MD"), Some("rs"), None].map(Syntax::of_path);
        assert_eq!(syntaxes, [Syntax::Markdown, Syntax::Code, Syntax::Plain]);
    }
}
