//! The chunker's promises, over small examples and arbitrary text.

use super::*;
use proptest::prelude::*;

const NO_OVERLAP: ChunkOptions = ChunkOptions { tokens_max: 8, overlap_tokens: 0 };

/// Runs of letters and digits, and every other char that is not white space by itself.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut tokens: Vec<Range<usize>> = Vec::new();
    let mut in_word = false;
    for (start, char) in text.char_indices() {
        let end = start + char.len_utf8();
        let letter = char.is_alphanumeric();
        match tokens.last_mut() {
            Some(last) if in_word && letter => last.end = end,
            _ if !char.is_whitespace() => tokens.push(start..end),
            _ => {}
        }
        in_word = letter;
    }
    tokens
}

/// Chars as tokens; `bytes` makes one of each of their bytes, which all reach over the whole char.
fn chars(text: &str, bytes: bool) -> Vec<Range<usize>> {
    let times = |char: char| if bytes { char.len_utf8() } else { 1 };
    let spans = text.char_indices().map(|(at, char)| (at..at + char.len_utf8(), times(char)));
    spans.flat_map(|(span, times)| std::iter::repeat_n(span, times)).collect()
}

fn cut_words(text: &str, syntax: Syntax, options: ChunkOptions) -> Vec<&str> {
    let found = chunks(text, 0, &words(text), syntax, Carry::default(), options);
    found.into_iter().map(|range| &text[range]).collect()
}

/// Counts tokens the slow way.
fn touched(spans: &[(usize, usize)], range: &Range<usize>) -> usize {
    spans.iter().filter(|(start, end)| *start < range.end && *end > range.start).count()
}

fn texts() -> impl Strategy<Value = String> {
    let fixed = "\n|\r\n|\n\n|# Head\n|```\n|~~~\n|- item\n|\\| a \\| b \\|\n|fn f\\(\\) \\{\n|\\}\n|    x\n|word |Some end\\. |\u{301}|👩\u{200d}|🇩🇪|漢字。|かな| |\u{a0}|é|ก|base64xyz";
    let pieces = (prop_oneof![4 => fixed, 1 => any::<String>()], 1..9usize, 0..12u8);
    // Now and then a long run of one piece.
    let piece =
        pieces.prop_map(|(text, times, long)| text.repeat(if long == 0 { times * 40 } else { times }));
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn tokenised() -> impl Strategy<Value = (String, Vec<Range<usize>>)> {
    (texts(), 0..7u8, proptest::collection::vec((any::<u16>(), any::<u16>()), 0..200)).prop_map(
        |(text, kind, pairs)| {
            let size = text.len() + 3;
            let random = pairs.iter().map(|&(a, b)| (usize::from(a) % size)..(usize::from(b) % size));
            let tokens = match kind {
                0 | 1 => words(&text),
                2 => chars(&text, false),
                3 => chars(&text, true),
                4 => (0..text.len()).map(|at| at..at + 1).collect(),
                5 => std::iter::once(0..text.len()).chain(words(&text)).collect(),
                _ => random.collect(),
            };
            (text, tokens)
        },
    )
}

fn syntaxes() -> impl Strategy<Value = Syntax> {
    prop_oneof![Just(Syntax::Plain), Just(Syntax::Markdown), Just(Syntax::Code)]
}

/// The start of a document, the inside of a fence, and the inside of a line there and elsewhere.
fn carries() -> impl Strategy<Value = Carry> {
    let befores = ["x\n".repeat(70_000), format!("```\n{}", "x\n".repeat(70_000)), "x ".repeat(70_000), {
        format!("~~~\n{}", "x ".repeat(70_000))
    }];
    let cut =
        |text: &String| crate::inference::segment::cut(text, true, Syntax::Markdown, Carry::default()).1;
    proptest::sample::select(befores.iter().map(cut).collect::<Vec<_>>())
}

fn options() -> impl Strategy<Value = ChunkOptions> {
    (8..40u32)
        .prop_flat_map(|max| (Just(max), prop_oneof![Just(0), 0..=max / 2]))
        .prop_map(|(tokens_max, overlap_tokens)| ChunkOptions { tokens_max, overlap_tokens })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn chunks_keep_their_promises(
        (text, tokens) in tokenised(), body in any::<prop::sample::Index>(),
        syntax in syntaxes(), options in options(), carry in carries(),
    ) {
        let body_start = text.floor_char_boundary(body.index(text.len() + 1) / 4);
        let found = chunks(&text, body_start, &tokens, syntax, carry, options);
        let again = chunks(&text, body_start, &tokens, syntax, carry, options);
        prop_assert_eq!(&found, &again);
        prop_assert!(options.validate().is_ok());
        let bytes_max = options.tokens_max as usize * CHUNK_BYTES_PER_TOKEN_MAX;
        let mut end = text[..body_start].trim_end().len();
        let mut start_min = 0;
        let spans = spans(&text, &tokens);
        for chunk in &found {
            let part = &text[chunk.clone()];
            prop_assert!(!part.is_empty() && part.trim() == part);
            prop_assert!(part.len() <= bytes_max);
            prop_assert!(
                touched(&spans, chunk) <= options.tokens_max as usize || part.chars().count() == 1
            );
            prop_assert!(chunk.start >= start_min && chunk.end > end);
            // What no chunk holds is white space.
            let new = end.max(body_start);
            prop_assert!(chunk.start <= new || text[new..chunk.start].trim().is_empty());
            if chunk.start < end {
                let repeated = chunk.start..end;
                prop_assert!(touched(&spans, &repeated) <= options.overlap_tokens as usize);
                let last = text[..chunk.start].chars().next_back();
                let next = text[chunk.start..].chars().next();
                let parted = last.is_none_or(|c| c.is_whitespace() || is_unspaced(c) || "。！？".contains(c)
                    || !c.is_alphanumeric());
                prop_assert!(parted || next.is_some_and(is_unspaced), "overlap within a word");
            }
            (start_min, end) = (chunk.start + 1, chunk.end);
        }
        prop_assert!(text[end.max(body_start)..].trim().is_empty());
        if options.overlap_tokens == 0 {
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(found.first().is_none_or(|chunk| chunk.start >= body_start));
        }
    }

    #[test]
    fn a_token_is_cut_only_when_it_starts_with_the_chunk(
        text in "([a-z]{1,12}[ ,.\n]{0,2}|[a-z]{120,300}| {100,200}|漢字){0,60}", syntax in syntaxes(), options in options(),
    ) {
        let tokens = words(&text);
        let found = chunks(&text, 0, &tokens, syntax, Carry::default(), options);
        let mut new = skip_space(&text, 0);
        for pair in found.windows(2) {
            let next = skip_space(&text, pair[0].end);
            let cut = tokens.iter().find(|token| token.start < pair[0].end && token.end > next);
            prop_assert!(cut.is_none_or(|token| token.start <= new), "{:?} in {:?}", cut, pair);
            new = next;
        }
    }
}

proptest! {
    #[test]
    fn no_chunk_ends_with_a_short_heading(
        text in "(# [A-Z] [a-z]{1,9}\n{1,2}([a-z]{1,9}[ .\n]{1,2}){0,20}[a-z]\n{1,2}){1,9}", overlap_tokens in 0..8u32,
    ) {
        let parts = cut_words(&text, Syntax::Markdown, ChunkOptions { tokens_max: 24, overlap_tokens });
        let lost = parts.iter().find(|part| part.lines().next_back().is_some_and(|line| line.starts_with("# ")));
        prop_assert_eq!(lost, None);
    }
}

#[test]
fn a_heading_goes_with_what_follows() {
    let text = "One two three four five.\n\n# A heading\n\nText of it.\n";
    assert_eq!(
        cut_words(text, Syntax::Markdown, NO_OVERLAP),
        ["One two three four five.", "# A heading\n\nText of it."]
    );
    let text = "One two three.\n# A\n## B\nBody text.";
    assert_eq!(cut_words(text, Syntax::Markdown, NO_OVERLAP), ["One two three.", "# A\n## B\nBody text."]);
}

#[test]
fn paragraphs_part_before_sentences() {
    for (blank, line) in [("\n\n", "\n"), ("\r\n\r\n", "\r\n"), ("\n \t\n", "\n")] {
        let text = format!("One two. Three four five.{blank}Six{line}seven. Eight nine ten.");
        let parts = cut_words(&text, Syntax::Plain, NO_OVERLAP);
        let rest = format!("Six{line}seven. Eight nine ten.");
        assert_eq!(parts, ["One two. Three four five.", &rest]);
    }
}

#[test]
fn a_lone_line_end_in_prose_is_white_space() {
    let text = "One two three. Four\nfive six seven eight nine. Ten.";
    assert_eq!(
        cut_words(text, Syntax::Markdown, NO_OVERLAP),
        ["One two three.", "Four\nfive six seven eight nine.", "Ten."]
    );
}

#[test]
fn items_and_rows_part_at_line_ends() {
    let text = "- one two. Three\n- four five six\n- seven eight nine";
    assert_eq!(
        cut_words(text, Syntax::Markdown, NO_OVERLAP),
        ["- one two. Three", "- four five six\n- seven eight nine"]
    );
    let text = "| a | b |\n| c | d |\n| e | f |";
    assert_eq!(cut_words(text, Syntax::Markdown, NO_OVERLAP), ["| a | b |", "| c | d |", "| e | f |"]);
}

#[test]
fn code_parts_at_top_level_items() {
    let text = "use a;\n\nfn b() {\n    c;\n\n    d\n}\n\nfn e() {\n    f\n}\n";
    let options = ChunkOptions { tokens_max: 14, overlap_tokens: 0 };
    assert_eq!(
        cut_words(text, Syntax::Code, options),
        ["use a;\n\nfn b() {\n    c;\n\n    d\n}", "fn e() {\n    f\n}"]
    );
}

#[test]
fn a_fence_that_fits_stays_whole() {
    let text = "One two three.\n\n```\n# no\n\nheading\n```\n\nFour five six seven.";
    let options = ChunkOptions { tokens_max: 12, overlap_tokens: 0 };
    assert_eq!(
        cut_words(text, Syntax::Markdown, options),
        ["One two three.", "```\n# no\n\nheading\n```", "Four five six seven."]
    );
}

#[test]
fn a_fence_that_crosses_the_cut_of_segments_stays_code() {
    let before = ["```sh\n", &"x\n".repeat(40_000)].concat();
    let (_, carry) = crate::inference::segment::cut(&before, true, Syntax::Markdown, Carry::default());
    let text = "a b c d\n# comment\ne f g h i\n```\nText.";
    let parts = |carry| -> Vec<&str> {
        let found = chunks(text, 0, &words(text), Syntax::Markdown, carry, NO_OVERLAP);
        found.into_iter().map(|range| &text[range]).collect()
    };
    assert_eq!(parts(carry)[0], "a b c d\n# comment");
    assert_eq!(parts(Carry::default())[0], "a b c d");
}

#[test]
fn an_overlap_starts_at_a_sentence_or_else_at_a_word() {
    let options = ChunkOptions { tokens_max: 8, overlap_tokens: 4 };
    let text = "One two three four. Five six. Seven eight nine ten.";
    assert_eq!(
        cut_words(text, Syntax::Plain, options),
        ["One two three four. Five six.", "Five six. Seven eight nine ten."]
    );
    let text = "a b c d e f g h i j";
    assert_eq!(cut_words(text, Syntax::Plain, options), ["a b c d e f g h", "e f g h i j"]);
}

#[test]
fn the_first_chunk_reaches_into_the_lead_only_to_overlap() {
    let text = "Lead one. Lead two. Body.";
    let parts = |overlap_tokens| {
        let options = ChunkOptions { tokens_max: 8, overlap_tokens };
        chunks(text, 20, &words(text), Syntax::Plain, Carry::default(), options)
    };
    assert_eq!([parts(0), parts(3), parts(2)].concat(), [20..25, 10..25, 15..25]);
}

#[test]
fn runs_without_tokens_are_bounded_and_graphemes_kept() {
    let text = format!("See {}", "e\u{301}".repeat(200));
    let found = chunks(&text, 0, &[0..3, 4..text.len()], Syntax::Plain, Carry::default(), NO_OVERLAP);
    assert_eq!(found[0], 0..3);
    assert!(found.iter().all(|chunk| chunk.len() <= 128 && !text[chunk.clone()].starts_with('\u{301}')));
}

#[test]
fn any_text_takes_linear_time() {
    let bases = [
        "\u{301}",
        "👩\u{200d}",
        "🇩🇪",
        " ",
        "a",
        ".",
        ")",
        ". ",
        "漢",
        "\n",
        "# \n",
        "```\n",
        "a\u{200d}",
        "क\u{94d}",
        "\u{600}",
        "- \n",
    ];
    for base in bases {
        let text = base.repeat(65_536 / base.len());
        for tokens in
            [Vec::new(), chars(&text, false), words(&text), std::iter::once(0..text.len()).collect()]
        {
            for (tokens_max, overlap_tokens) in [(8, 4), (256, 128), (8192, 0)] {
                let options = ChunkOptions { tokens_max, overlap_tokens };
                // No clock: a quadratic step would take minutes and be seen.
                chunks(&text, 0, &tokens, Syntax::Markdown, Carry::default(), options);
            }
        }
    }
}

#[test]
fn options_are_refused_outside_their_bounds() {
    let options = |tokens_max, overlap_tokens| ChunkOptions { tokens_max, overlap_tokens }.validate();
    assert_eq!(options(8, 4), Ok(()));
    assert_eq!(options(7, 0), Err(ChunkOptionsError::TokensMaxTooSmall { tokens_max: 7 }));
    assert!(matches!(options(8, 5), Err(ChunkOptionsError::OverlapTooLarge { .. })));
    assert!(chunks("", 9, &[], Syntax::Plain, Carry::default(), NO_OVERLAP).is_empty());
}

#[test]
fn sentences_end_where_a_reader_would_say_so() {
    let ending = ["Yes.| No", "Yes.)| “No", "in 1990.| Then", "so!| He", "完。|了"];
    let going_on = ["approx.| three", "Mr.| Fox", "J.| Fox", "am 3.| Mai", "3.|5", "完。|」"];
    for marked in ending.iter().chain(&going_on) {
        let (text, end) = (marked.replace('|', ""), marked.find('|').unwrap());
        let next = text.len() - text[end..].trim_start().len();
        assert_eq!(ends_sentence(&text, end, next), ending.contains(marked), "{text}");
    }
}

#[test]
fn the_state_at_the_body_rules_over_lead_and_blank_lines() {
    let (_, in_line) =
        crate::inference::segment::cut(&"x ".repeat(70_000), true, Syntax::Markdown, Carry::default());
    let first = |text: &'static str, body_start, carry| {
        let found = chunks(text, body_start, &words(text), Syntax::Markdown, carry, NO_OVERLAP);
        &text[found[0].clone()]
    };
    // A fence that the lead opens says nothing; the carry says that none is open.
    assert_eq!(first("```\na b c d e\n# F g\nh i j", 4, Carry::default()), "a b c d e");
    // The rest of a cut line is no heading; the line after it may be one.
    assert_eq!(first("# b c d e f g h i j k", 0, in_line), "# b c d e f g h");
    assert_eq!(first("# a b c d e\n# F g\nh i j", 0, in_line), "# a b c d e");
    assert_eq!(first(" \n~~~\n# a\nb c d e f", 0, in_line), "~~~\n# a");
}
