//! The bytes of a D-Bus message: reads both byte orders, writes the little-endian one.
//!
//! Deliberately absent: file descriptors, and any value that no message of ours needs; those are stepped over by their
//! signature. Nothing that is read is believed: every length is checked against what there is before it is used.
//! Source: D-Bus specification 0.43, "Type System", "Message Protocol".

/// Bytes of a message, ours and theirs. A session's properties are some 1,500.
pub(super) const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Bytes that open every message and tell its length.
pub(super) const HEAD_BYTES: usize = 16;
/// Containers within containers; the specification allows 64 in all.
const DEPTH_MAX: usize = 32;

/// What is no D-Bus message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::power) struct Malformed;

type Parsed<T> = Result<T, Malformed>;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::power) enum Kind {
    Answer,
    Refusal,
    Signal,
    /// A question to us, or a kind of the future: to be ignored.
    Other,
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::power) struct Message {
    pub(in crate::power) kind: Kind,
    /// The question that this answers.
    pub(in crate::power) answers: Option<u32>,
    /// Name of the error, of a refusal.
    pub(in crate::power) error: String,
    /// Of the body.
    pub(in crate::power) signature: String,
    bytes: Vec<u8>,
    body_at: usize,
    is_big: bool,
}

impl Message {
    /// The body, from its beginning.
    pub(in crate::power) fn body(&self) -> Reader<'_> {
        Reader { bytes: self.bytes.get(self.body_at..).unwrap_or_default(), at: 0, is_big: self.is_big }
    }
}

/// The length of the message that opens so.
pub(super) fn length(head: &[u8; HEAD_BYTES]) -> Parsed<usize> {
    let (body, fields) = sizes(head)?;
    let length = body.checked_add(aligned(HEAD_BYTES + fields, 8)).ok_or(Malformed)?;
    if length > MESSAGE_BYTES_MAX { Err(Malformed) } else { Ok(length) }
}

/// Bytes of the body and of the header's fields, each within a message's bound.
fn sizes(head: &[u8; HEAD_BYTES]) -> Parsed<(usize, usize)> {
    let is_big = match head[0] {
        b'l' => false,
        b'B' => true,
        _ => return Err(Malformed),
    };
    // The fourth byte is the protocol's version.
    if head[3] != 1 {
        return Err(Malformed);
    }
    let mut reader = Reader { bytes: head, at: 4, is_big };
    let (body, _serial, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
    let is_bounded = body <= MESSAGE_BYTES_MAX && fields <= MESSAGE_BYTES_MAX;
    is_bounded.then_some((body, fields)).ok_or(Malformed)
}

/// Takes a whole message apart.
pub(super) fn parse(bytes: Vec<u8>) -> Parsed<Message> {
    let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(Malformed)?;
    if length(head)? != bytes.len() {
        return Err(Malformed);
    }
    let (_, fields) = sizes(head)?;
    let kind = match head[1] {
        2 => Kind::Answer,
        3 => Kind::Refusal,
        4 => Kind::Signal,
        0 => return Err(Malformed),
        _ => Kind::Other,
    };
    let is_big = head[0] == b'B';
    let fields_end = HEAD_BYTES + fields;
    let mut reader = Reader { bytes: bytes.get(..fields_end).ok_or(Malformed)?, at: HEAD_BYTES, is_big };
    let (mut answers, mut error, mut signature) = (None, String::new(), String::new());
    while reader.at < fields_end {
        reader.align(8)?;
        let code = reader.u8()?;
        let kind = reader.signature()?;
        match (code, kind) {
            (4, "s") => error = reader.string()?.to_owned(),
            (5, "u") => answers = Some(reader.u32()?),
            (8, "g") => signature = reader.signature()?.to_owned(),
            (_, kind) => reader.skip(kind)?,
        }
    }
    let body_at = aligned(fields_end, 8);
    Ok(Message { kind, answers, error, signature, bytes, body_at, is_big })
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub(in crate::power) struct Call<'a> {
    pub(in crate::power) destination: &'a str,
    pub(in crate::power) path: &'a str,
    pub(in crate::power) interface: &'a str,
    pub(in crate::power) member: &'a str,
    /// The only argument that any of our questions has.
    pub(in crate::power) argument: Option<&'a str>,
}

/// A method call. It starts no service: a machine on which logind does not run has none.
pub(super) fn call_bytes(call: &Call<'_>, serial: u32) -> Vec<u8> {
    const METHOD_CALL: u8 = 1;
    const NO_AUTO_START: u8 = 2;
    let mut body = Vec::new();
    if let Some(argument) = call.argument {
        put_string(&mut body, argument);
    }
    let mut out = vec![b'l', METHOD_CALL, NO_AUTO_START, 1];
    put_u32(&mut out, body.len());
    out.extend(serial.to_le_bytes());
    put_u32(&mut out, 0);
    let texts = [
        (1, b'o', call.path),
        (2, b's', call.interface),
        (3, b's', call.member),
        (6, b's', call.destination),
    ];
    for (code, kind, text) in texts {
        pad(&mut out, 8);
        out.extend([code, 1, kind, 0]);
        put_string(&mut out, text);
    }
    if call.argument.is_some() {
        pad(&mut out, 8);
        out.extend([8, 1, b'g', 0, 1, b's', 0]);
    }
    let fields = u32::try_from(out.len() - HEAD_BYTES).unwrap_or(u32::MAX);
    out[12..HEAD_BYTES].copy_from_slice(&fields.to_le_bytes());
    pad(&mut out, 8);
    out.extend(body);
    out
}

fn put_u32(out: &mut Vec<u8>, n: usize) {
    out.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len());
    out.extend(text.as_bytes());
    out.push(0);
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(aligned(out.len(), to), 0);
}

const fn aligned(at: usize, to: usize) -> usize {
    at.div_ceil(to) * to
}

/// Reads values in the order in which a signature names them. Alignment counts from the body's beginning, which stands
/// at a multiple of 8 itself.
#[derive(Clone, Debug)]
pub(in crate::power) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Parsed<&'a [u8]> {
        let end = self.at.checked_add(n).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Parsed<()> {
        let at = aligned(self.at, to);
        if at > self.bytes.len() {
            return Err(Malformed);
        }
        self.at = at;
        Ok(())
    }

    fn fixed<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| Malformed)?;
        if self.is_big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    pub(in crate::power) fn u8(&mut self) -> Parsed<u8> {
        self.fixed().map(u8::from_le_bytes)
    }

    pub(in crate::power) fn u32(&mut self) -> Parsed<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(in crate::power) fn u64(&mut self) -> Parsed<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    pub(in crate::power) fn boolean(&mut self) -> Parsed<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// A string or an object path.
    pub(in crate::power) fn string(&mut self) -> Parsed<&'a str> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    pub(in crate::power) fn signature(&mut self) -> Parsed<&'a str> {
        let length = usize::from(self.u8()?);
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Parsed<&'a str> {
        let text = self.take(length)?;
        if self.take(1)? != [0] {
            return Err(Malformed);
        }
        std::str::from_utf8(text).map_err(|_| Malformed)
    }

    /// Steps to where an array's elements begin, each aligned to `align`; where they end.
    pub(in crate::power) fn array(&mut self, align: usize) -> Parsed<usize> {
        let length = self.u32()? as usize;
        self.align(align)?;
        let end = self.at.checked_add(length).filter(|&end| end <= self.bytes.len()).ok_or(Malformed)?;
        Ok(end)
    }

    /// Whether an element of the array that ends at `end` follows; steps to its beginning.
    pub(in crate::power) fn more(&mut self, end: usize, align: usize) -> Parsed<bool> {
        if self.at >= end {
            return if self.at == end { Ok(false) } else { Err(Malformed) };
        }
        self.align(align)?;
        if self.at >= end { Err(Malformed) } else { Ok(true) }
    }

    /// Steps over one value of each complete type in `signature`.
    pub(in crate::power) fn skip(&mut self, signature: &str) -> Parsed<()> {
        let mut rest = signature.as_bytes();
        while !rest.is_empty() {
            rest = self.skip_one(rest, DEPTH_MAX)?;
        }
        Ok(())
    }

    /// Steps over one value; what is left of the signature.
    fn skip_one<'s>(&mut self, signature: &'s [u8], depth: usize) -> Parsed<&'s [u8]> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let (&code, mut rest) = signature.split_first().ok_or(Malformed)?;
        match code {
            b'y' => self.fixed::<1>().map(drop)?,
            b'n' | b'q' => self.fixed::<2>().map(drop)?,
            b'b' | b'i' | b'u' | b'h' => self.fixed::<4>().map(drop)?,
            b'x' | b't' | b'd' => self.fixed::<8>().map(drop)?,
            b's' | b'o' => self.string().map(drop)?,
            b'g' => self.signature().map(drop)?,
            b'v' => {
                let inner = self.signature()?.as_bytes();
                if !self.skip_one(inner, depth)?.is_empty() {
                    return Err(Malformed);
                }
            }
            b'a' => {
                let element = rest;
                rest = after_one(element, depth)?;
                self.at = self.array(alignment(element)?)?;
            }
            b'(' | b'{' => {
                self.align(8)?;
                let close = if code == b'(' { b')' } else { b'}' };
                loop {
                    match rest.split_first() {
                        Some((&end, after)) if end == close => {
                            rest = after;
                            break;
                        }
                        _ => rest = self.skip_one(rest, depth)?,
                    }
                }
            }
            _ => return Err(Malformed),
        }
        Ok(rest)
    }
}

fn alignment(signature: &[u8]) -> Parsed<usize> {
    Ok(match signature.first().ok_or(Malformed)? {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    })
}

/// What follows the first complete type of a signature.
fn after_one(signature: &[u8], depth: usize) -> Parsed<&[u8]> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let (&code, mut rest) = signature.split_first().ok_or(Malformed)?;
    match code {
        b'a' => after_one(rest, depth),
        b'(' | b'{' => {
            let close = if code == b'(' { b')' } else { b'}' };
            loop {
                match rest.split_first() {
                    Some((&end, after)) if end == close => return Ok(after),
                    _ => rest = after_one(rest, depth)?,
                }
            }
        }
        b'y' | b'n' | b'q' | b'b' | b'i' | b'u' | b'h' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v' => {
            Ok(rest)
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests;
