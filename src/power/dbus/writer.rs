//! Writes D-Bus values and messages in either byte order, for tests.

/// Values one after another.
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    is_big: bool,
}

impl Writer {
    pub(super) fn new(is_big: bool) -> Self {
        Self::with(is_big, Vec::new())
    }

    pub(super) fn with(is_big: bool, out: Vec<u8>) -> Self {
        Self { out, is_big }
    }

    pub(super) fn pad(&mut self, to: usize) -> &mut Self {
        self.out.resize(self.out.len().div_ceil(to) * to, 0);
        self
    }

    fn order(&self, n: usize) -> [u8; 4] {
        let n = u32::try_from(n).unwrap();
        if self.is_big { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    pub(super) fn u32(&mut self, n: usize) -> &mut Self {
        let bytes = self.order(n);
        self.pad(4).out.extend(bytes);
        self
    }

    pub(super) fn u64(&mut self, n: u64) -> &mut Self {
        let bytes = if self.is_big { n.to_be_bytes() } else { n.to_le_bytes() };
        self.pad(8).out.extend(bytes);
        self
    }

    pub(super) fn string(&mut self, text: &str) -> &mut Self {
        self.u32(text.len()).out.extend(text.as_bytes());
        self.out.push(0);
        self
    }

    pub(super) fn signature(&mut self, text: &str) -> &mut Self {
        self.out.push(u8::try_from(text.len()).unwrap());
        self.out.extend(text.as_bytes());
        self.out.push(0);
        self
    }

    pub(super) fn array(&mut self, align: usize, elements: impl FnOnce(&mut Self)) -> &mut Self {
        let length_at = self.u32(0).out.len() - 4;
        let begins = self.pad(align).out.len();
        elements(self);
        let length = self.order(self.out.len() - begins);
        self.out[length_at..length_at + 4].copy_from_slice(&length);
        self
    }

    /// A whole message that answers question `answers`.
    pub(super) fn message(
        is_big: bool,
        kind: u8,
        answers: usize,
        error: &str,
        signature: &str,
        body: &[u8],
    ) -> Vec<u8> {
        let mut w = Self::with(is_big, vec![if is_big { b'B' } else { b'l' }, kind, 0, 1]);
        w.u32(body.len()).u32(9).array(8, |w| {
            w.out.extend([5, 1, b'u', 0]);
            w.u32(answers).pad(8).out.extend([4, 1, b's', 0]);
            w.string(error).pad(8).out.extend([8, 1, b'g', 0]);
            w.signature(signature).pad(8);
            // A field of the future, of a type of the future's choosing.
            w.out.extend([99, 1, b'v', 0]);
            w.signature("a{sv}").array(8, |_| ());
        });
        w.pad(8).out.extend(body);
        w.out
    }
}
