//! A ticket: one string that a person hands another so that they may join a swarm.
//!
//! It says where to ask and proves that the asker was invited. Deliberately absent: any secret of the swarm. Who finds a
//! ticket can use it up; it learns the swarm's name, and nothing more before it is admitted.
//!
//! Text: `edge` and lower-case base32 without padding of
//! `version: u8 | length: u16 | BLAKE3(these)[..2] | BLAKE3(these, body)[..4] | body`, big-endian, where the length is that
//! of the body and the body is postcard. The frame is the same for every version, so a mistyped ticket is never taken for a
//! forged or a newer one.

use std::{fmt, str::FromStr};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::{Founding, InviteId, Issued, IssuedError, Paper, PeerId, SignedKind, SwarmId};

/// Most peers that a ticket names: who admits, and some who know the way.
pub const ADMITTERS_MAX: usize = 4;
/// Most addresses that a ticket has of each: LAN and public, of both families.
pub const ADMITTER_ADDRESSES_MAX: usize = 4;
/// Longest ticket, in characters: the largest takes 1,400, four full admitters and a delegation.
pub const TICKET_CHARS_MAX: usize = 2048;

const PREFIX: &str = "edge";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;
/// The part of the header that says how much follows: five bytes, 8 characters sharp.
const LENGTH_BYTES: usize = 5;

/// That whoever has this may join: signed by the founder or a delegate. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Where.
    pub swarm: SwarmId,
    /// By which it is counted and revoked.
    pub id: InviteId,
    /// Wall clock in milliseconds since 1970, judged by who admits; none: it does not expire.
    pub expires_ms: Option<u64>,
    /// Peers that may join by it.
    pub uses_max: u32,
    /// When it was signed: it outlives its epoch, but nobody who was kicked later comes back by it.
    pub epoch: u64,
}

impl SignedKind for Invite {
    const KIND: &'static str = "invite";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

impl Paper for Invite {
    fn place(&self) -> (SwarmId, u64) {
        (self.swarm, self.epoch)
    }

    fn serial(&self) -> Option<u64> {
        None
    }
}

/// An invite and who to ask. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    founding: Founding,
    invite: Issued,
    admitters: Vec<(PeerId, Vec<SocketAddr>)>,
}

/// Why a text is no ticket that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TicketError {
    /// Something else altogether.
    #[error("this is no ticket: one starts with \"edge\" and is made of a-z and 2-7")]
    NotATicket,
    /// Longer than [`TICKET_CHARS_MAX`].
    #[error("this is no ticket: none is longer than {TICKET_CHARS_MAX} characters")]
    TooLong,
    /// The end is missing.
    #[error("the ticket is cut off: {found} of its {wanted} characters are here")]
    CutOff {
        /// Characters found.
        found: usize,
        /// Characters that it had.
        wanted: usize,
    },
    /// Something was added.
    #[error("the ticket has {extra} characters too many at its end")]
    Extra {
        /// Characters behind the last one.
        extra: usize,
    },
    /// A character is wrong, missing or too many.
    #[error("the ticket is mistyped or damaged: its checksum does not match")]
    Mistyped,
    /// Written by a newer edge.
    #[error("the ticket has version {found}, this edge reads version {VERSION}: a newer edge is needed")]
    Newer {
        /// Version found.
        found: u8,
    },
    /// Rightly written, and still none of ours: a bug of whoever wrote it.
    #[error("the ticket does not decode")]
    Decode(#[source] postcard::Error),
    /// Rightly written, with more in it than a ticket has.
    #[error("the ticket names more peers or addresses than a ticket does")]
    TooMany,
    /// The invite in it is not signed by whom it says, or who signed had no right to.
    #[error("the ticket is forged")]
    Forged(#[source] IssuedError),
}

impl Ticket {
    /// A ticket of the first [`ADMITTERS_MAX`] admitters and the first [`ADMITTER_ADDRESSES_MAX`] addresses of each. Only
    /// who signed the invite can admit by it, so it comes first; the others may know where it is.
    pub fn new(founding: Founding, invite: Issued, admitters: Vec<(PeerId, Vec<SocketAddr>)>) -> Self {
        let mut admitters = admitters;
        admitters.truncate(ADMITTERS_MAX);
        admitters.iter_mut().for_each(|(_, addresses)| addresses.truncate(ADMITTER_ADDRESSES_MAX));
        Self { founding, invite, admitters }
    }

    /// The swarm that it leads to.
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// What is shown to who admits.
    pub fn invite(&self) -> &Issued {
        &self.invite
    }

    /// Who to ask, and where.
    pub fn admitters(&self) -> &[(PeerId, Vec<SocketAddr>)] {
        &self.admitters
    }

    /// The facts of its invite. A ticket that was parsed has a rightly signed one.
    ///
    /// # Errors
    /// [`IssuedError`] where it has not.
    pub fn facts(&self) -> Result<Invite, IssuedError> {
        self.invite.open(&self.founding).map(|(invite, _)| invite)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = postcard::to_allocvec(self).map_err(|_| fmt::Error)?;
        f.write_str(&framed(VERSION, &body))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// White space is ignored: a mail programme may have wrapped the line.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        // Twice, so that spaces do not count; and nothing is copied that can be no ticket.
        if text.len() > 2 * TICKET_CHARS_MAX {
            return Err(TicketError::TooLong);
        }
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong);
        }
        let (version, body) = unframed(&text)?;
        if version != VERSION {
            return Err(TicketError::Newer { found: version });
        }
        let ticket: Self = match postcard::take_from_bytes(&body) {
            Ok((ticket, [])) => ticket,
            Ok(_) => return Err(TicketError::Decode(postcard::Error::DeserializeBadEncoding)),
            Err(error) => return Err(TicketError::Decode(error)),
        };
        let crowded = |(_, addresses): &(_, Vec<_>)| addresses.len() > ADMITTER_ADDRESSES_MAX;
        if ticket.admitters.len() > ADMITTERS_MAX || ticket.admitters.iter().any(crowded) {
            return Err(TicketError::TooMany);
        }
        ticket.facts().map_err(TicketError::Forged)?;
        Ok(ticket)
    }
}

fn framed(version: u8, body: &[u8]) -> String {
    let [high, low] = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![version, high, low];
    bytes.extend_from_slice(&checksum::<2>(&[&bytes]));
    bytes.extend_from_slice(&checksum::<4>(&[&bytes, body]));
    bytes.extend_from_slice(body);
    format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

fn unframed(text: &str) -> Result<(u8, Vec<u8>), TicketError> {
    let Some(rest) = text.strip_prefix(PREFIX) else { return Err(TicketError::NotATicket) };
    if !rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')) {
        // After the right beginning a strange character is a slip of the hand.
        return Err(TicketError::Mistyped);
    }
    let encoded = rest.to_ascii_uppercase().into_bytes();
    let start_chars = BASE32_NOPAD.encode_len(LENGTH_BYTES);
    if encoded.len() < start_chars {
        let wanted = PREFIX.len() + BASE32_NOPAD.encode_len(HEADER_BYTES);
        return Err(TicketError::CutOff { found: text.len(), wanted });
    }
    let start = BASE32_NOPAD.decode(&encoded[..start_chars]).map_err(|_| TicketError::Mistyped)?;
    if start[3..] != checksum::<2>(&[&start[..3]]) {
        return Err(TicketError::Mistyped);
    }
    let body_bytes = usize::from(u16::from_be_bytes([start[1], start[2]]));
    let wanted = BASE32_NOPAD.encode_len(HEADER_BYTES + body_bytes);
    if encoded.len() < wanted {
        return Err(TicketError::CutOff { found: text.len(), wanted: PREFIX.len() + wanted });
    }
    if encoded.len() > wanted {
        return Err(TicketError::Extra { extra: encoded.len() - wanted });
    }
    let bytes = BASE32_NOPAD.decode(&encoded).map_err(|_| TicketError::Mistyped)?;
    let (header, body) = bytes.split_at(HEADER_BYTES);
    if header[LENGTH_BYTES..] != checksum::<4>(&[&header[..LENGTH_BYTES], body]) {
        return Err(TicketError::Mistyped);
    }
    Ok((header[0], body.to_vec()))
}

fn checksum<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake3::Hasher::new_derive_key("edge/1 ticket checksum");
    for part in parts {
        hasher.update(part);
    }
    let mut sum = [0; N];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..N]);
    sum
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Delegation, Signed};

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn id(n: u8) -> PeerId {
        PeerId::from_bytes(key(n).verifying_key().to_bytes())
    }

    fn founding() -> Founding {
        Founding { founder: id(1), nonce: [2; 16], name: "lab".parse().unwrap() }
    }

    fn invite() -> Invite {
        Invite {
            swarm: founding().id(),
            id: InviteId::from_bytes([6; 16]),
            expires_ms: Some(1_793_491_200_000),
            uses_max: 10,
            epoch: 3,
        }
    }

    fn ticket() -> Ticket {
        let issued = Issued { by: id(1), delegation: None, paper: Signed::sign(&key(1), &invite()) };
        let addresses = vec!["192.0.2.7:4433".parse().unwrap(), "[2001:db8::7]:4433".parse().unwrap()];
        Ticket::new(founding(), issued, vec![(id(1), addresses)])
    }

    fn largest() -> Ticket {
        let founding = Founding { name: "x".repeat(32).parse().unwrap(), ..founding() };
        let delegation = Delegation {
            swarm: founding.id(),
            epoch: u64::MAX,
            delegate: id(2),
            quota: u32::MAX,
            serial: u64::MAX,
        };
        let invite = Invite {
            swarm: founding.id(),
            id: InviteId::from_bytes([6; 16]),
            expires_ms: Some(u64::MAX),
            uses_max: u32::MAX,
            epoch: u64::MAX,
        };
        let issued = Issued {
            by: id(2),
            delegation: Some(Signed::sign(&key(1), &delegation)),
            paper: Signed::sign(&key(2), &invite),
        };
        let address: SocketAddr = "[2001:db8::7]:65535".parse().unwrap();
        Ticket::new(founding, issued, (2..9).map(|n| (id(n), vec![address; 9])).collect())
    }

    #[test]
    fn reads_what_it_wrote() {
        for ticket in [ticket(), largest()] {
            let text = ticket.to_string();
            assert!(text.len() <= TICKET_CHARS_MAX, "{}", text.len());
            assert_eq!(text.parse(), Ok(ticket));
        }
        assert_eq!(ticket().facts(), Ok(invite()));
        assert_eq!(largest().admitters().len(), ADMITTERS_MAX);
        assert_eq!(largest().admitters()[0].1.len(), ADMITTER_ADDRESSES_MAX);
        let wrapped = format!("  {}\r\n", ticket().to_string().replace('b', "b\n "));
        assert_eq!(wrapped.parse(), Ok(ticket()));
    }

    #[test]
    fn every_mistyped_character_is_told_as_such() {
        let text = ticket().to_string();
        for at in 0..text.len() {
            for wrong in "abcdefghijklmnopqrstuvwxyz234567A1-!".chars() {
                let mut mistyped = text.clone();
                mistyped.replace_range(at..=at, &wrong.to_string());
                if mistyped == text {
                    continue;
                }
                let wanted = if at < 4 { TicketError::NotATicket } else { TicketError::Mistyped };
                assert_eq!(mistyped.parse::<Ticket>(), Err(wanted), "{wrong} at {at}");
            }
        }
    }

    #[test]
    fn every_cut_is_told_as_such() {
        let text = ticket().to_string();
        for length in 4..text.len() {
            let cut = text[..length].parse::<Ticket>();
            assert!(matches!(cut, Err(TicketError::CutOff { found, .. }) if found == length), "{cut:?}");
        }
        let wanted = text.len();
        assert_eq!(text[..99].parse::<Ticket>(), Err(TicketError::CutOff { found: 99, wanted }));
        assert_eq!(format!("{text}aaa").parse::<Ticket>(), Err(TicketError::Extra { extra: 3 }));
        let said =
            BTreeSet::from(["", "e", "hello", "éééé", "swarm://x"].map(|t| t.parse::<Ticket>().is_err()));
        assert_eq!(said, BTreeSet::from([true]));
        assert_eq!("x".repeat(5000).parse::<Ticket>(), Err(TicketError::TooLong));
        assert_eq!("x".repeat(2049).parse::<Ticket>(), Err(TicketError::TooLong));
    }

    #[test]
    fn rightly_written_and_still_refused() {
        let body = postcard::to_allocvec(&ticket()).unwrap();
        assert_eq!(framed(2, &body).parse::<Ticket>(), Err(TicketError::Newer { found: 2 }));
        assert!(matches!(framed(1, &body[1..]).parse::<Ticket>(), Err(TicketError::Decode(_))));
        let long = [&body[..], &[0]].concat();
        assert!(matches!(framed(1, &long).parse::<Ticket>(), Err(TicketError::Decode(_))));
        let full = Ticket { admitters: vec![(id(1), Vec::new()); 5], ..ticket() };
        assert_eq!(full.to_string().parse::<Ticket>(), Err(TicketError::TooMany));
        // Another's swarm under the same invite.
        let stolen = Ticket { founding: Founding { nonce: [3; 16], ..founding() }, ..ticket() };
        assert_eq!(stolen.to_string().parse::<Ticket>(), Err(TicketError::Forged(IssuedError::Swarm)));
        let paper = Signed::sign(&key(5), &invite());
        let forged = Ticket { invite: Issued { by: id(1), delegation: None, paper }, ..ticket() };
        let forged = forged.to_string().parse::<Ticket>();
        assert!(matches!(forged, Err(TicketError::Forged(IssuedError::Paper(_)))), "{forged:?}");
    }

    /// These bytes cross sockets, lie on people's disks and in their mail: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        assert_eq!(
            HEXLOWER.encode(&postcard::to_allocvec(&invite()).unwrap()),
            "909f5dd6d8158539ebc6a77a8cedb0112f99281a160100fe22964c887433b3e4060606060606060606060606060606060180d09fa399340a03"
        );
        assert_eq!(
            ticket().to_string(),
            "edgeaeaqzuef7i3hue4krdr525aj6gk72uw3fu6luxlszjtqtpy5sqjbx43uraa3id3plqbaeaqcaibaeaqcaibaeaqcaibag3dbmkfiry65oqe7dfp5klns2pf2lvzmuzyjx4ozieq36n2iqanub5xvyab2agij6xow3akykoply2txvdhnwais7gjidilacah6eklezcdugoz6ibqgaydambqgaydambqgaydambqbqdij7i4zgqfahtnyclxc75wln7alfiglkgxosws7v5sk5m5je2yrpaz2nioe3izvb4giqsak6ffpi25ybkitdo4oqrappzrgclmbu3nmgxttwn2rzmhadcui4poxicprsx6vfwznhs5f24wkm4e36hmucin7g5eiag2a6324aiamaaaca7iseajaaeg3qaaaaaaaaaaaaaaaaaah2era"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(edge)?\\PC{0,200}", base32 in "edge[a-z2-7]{0,200}") {
            prop_assert!(text.parse::<Ticket>().is_err());
            prop_assert!(base32.parse::<Ticket>().is_err());
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(framed(1, &body).parse::<Ticket>().is_err());
        }
    }
}
