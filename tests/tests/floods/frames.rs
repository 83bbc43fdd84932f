//! HTTP/2 by hand: what no library sends.

/// What every client says first, and empty settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A kind of frame, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Data = 0,
    Headers = 1,
    Reset = 3,
    Continuation = 9,
}

/// A frame: kind, flags, stream and payload.
#[derive(Debug)]
pub(crate) struct Frame<'a>(
    pub(crate) Kind,
    pub(crate) u8,
    pub(crate) u32,
    pub(crate) &'a [u8],
);

impl Frame<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self(kind, flags, stream, payload) = self;
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [
            &length[1..],
            &[*kind as u8, *flags],
            &stream.to_be_bytes(),
            payload,
        ]
        .concat()
    }
}

/// The headers of a gRPC call, without any compression.
pub(crate) fn headers(path: &str) -> Vec<u8> {
    [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "master"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    .map(|(name, value)| literal(name, value))
    .concat()
}

/// A header as it is, not to be remembered.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    assert!(value.len() < 127, "longer ones are written otherwise");
    [
        &[0, length(name)],
        name.as_bytes(),
        &[length(value)],
        value.as_bytes(),
    ]
    .concat()
}
