//! Values in both byte orders, and bytes that are no message.

use proptest::prelude::*;

use super::*;
use crate::power::dbus::writer::Writer;

fn message(is_big: bool, kind: u8, signature: &str, body: &[u8]) -> Vec<u8> {
    Writer::message(is_big, kind, 77, "org.example.Error", signature, body)
}

#[test]
fn both_byte_orders_are_read() {
    for is_big in [false, true] {
        let mut body = Writer::new(is_big);
        body.string("é").u64(u64::MAX - 1).u32(1);
        let bytes = message(is_big, 2, "stb", &body.out);
        assert_eq!(length(bytes.first_chunk().unwrap()), Ok(bytes.len()));
        let message = parse(bytes).unwrap();
        assert_eq!((message.kind, message.answers), (Kind::Answer, Some(77)));
        assert_eq!((message.error.as_str(), message.signature.as_str()), ("org.example.Error", "stb"));
        let mut body = message.body();
        assert_eq!((body.string(), body.u64(), body.boolean()), (Ok("é"), Ok(u64::MAX - 1), Ok(true)));
        assert_eq!(body.u8(), Err(Malformed));
    }
}

#[test]
fn our_questions_are_right() {
    let call = Call { destination: "a.b", path: "/p", interface: "i.i", member: "M", argument: Some("x") };
    let bytes = call_bytes(&call, 5);
    let message = parse(bytes).unwrap();
    assert_eq!((message.kind, message.signature.as_str()), (Kind::Other, "s"));
    assert_eq!(message.body().string(), Ok("x"));
    let message = parse(call_bytes(&Call { argument: None, ..call }, 6)).unwrap();
    assert_eq!((message.signature.as_str(), message.body().u8()), ("", Err(Malformed)));
}

#[test]
fn values_of_every_type_are_stepped_over() {
    let mut w = Writer::with(false, vec![7]);
    w.u64(1).string("/o").signature("ai");
    w.u32(8).u32(1).u32(2);
    // A variant that holds a struct with an array of dictionary entries in it.
    w.signature("(sa{sv})").pad(8).string("x").array(8, |w| {
        w.pad(8).string("k").signature("u").u32(3);
    });
    w.string("last");
    let mut reader = Reader { bytes: &w.out, at: 0, is_big: false };
    reader.skip("ytogaiv").unwrap();
    assert_eq!(reader.string(), Ok("last"));
}

#[test]
fn what_is_no_message_is_refused() {
    let good = message(false, 2, "s", &[1, 0, 0, 0, b'x', 0]);
    assert!(parse(good.clone()).is_ok());
    for end in 0..good.len() {
        assert_eq!(parse(good[..end].to_vec()), Err(Malformed), "cut at {end}");
    }
    for (at, byte) in [(0, b'x'), (1, 0), (3, 2), (4, 255), (7, 127), (12, 255), (15, 127)] {
        let mut wrong = good.clone();
        wrong[at] = byte;
        assert_eq!(parse(wrong), Err(Malformed), "byte {at}");
    }
    let mut huge = *good.first_chunk().unwrap();
    huge[4..8].copy_from_slice(&(MESSAGE_BYTES_MAX as u32).to_le_bytes());
    assert_eq!(length(&huge), Err(Malformed));
    let nested = "(".repeat(200);
    let mut reader = Reader { bytes: &[0; 64], at: 0, is_big: false };
    assert_eq!(reader.skip(&nested), Err(Malformed));
    assert_eq!(reader.skip(&"a".repeat(200)), Err(Malformed));
    assert_eq!(reader.skip("?"), Err(Malformed));
    assert_eq!(reader.skip("(u"), Err(Malformed));
    // Variants within variants without an end.
    let endless: Vec<u8> = [1, b'v', 0].repeat(1000);
    assert_eq!(Reader { bytes: &endless, at: 0, is_big: false }.skip("v"), Err(Malformed));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300), signature in "[ybnqiuxtdsoghva(){}z]{0,20}",
        at in 0..300_usize, byte in any::<u8>(),
    ) {
        let mut reader = Reader { bytes: &bytes, at: 0, is_big: false };
        let _ = reader.skip(&signature);
        let _ = parse(bytes.clone());
        let mut nearly = message(byte & 1 == 0, 2, "a{sv}", &bytes);
        let place = at % nearly.len();
        nearly[place] = byte;
        if let Ok(message) = parse(nearly) {
            let mut body = message.body();
            let _ = body.skip(&message.signature);
        }
        bytes.truncate(16);
        if let Some(head) = bytes.first_chunk() {
            prop_assert!(length(head).is_ok_and(|n| n <= MESSAGE_BYTES_MAX) || length(head).is_err());
        }
    }
}
