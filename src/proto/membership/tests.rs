//! The rules, one by one. What they come to together is in `simulation`.

mod epochs;
mod frozen;
mod invites;
mod roles;

use ed25519_dalek::SigningKey;

use super::*;
use crate::wire::{Admitted, Credential, JoinRequest, Refusal, SwarmSecret, Ticket};

pub(super) const NOW: u64 = 1_793_491_200_000;
pub(super) const FOUNDER: u8 = 1;

pub(super) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(super) fn id(n: u8) -> PeerId {
    PeerId::from_bytes(key(n).verifying_key().to_bytes())
}

pub(super) fn secret(n: u8) -> SwarmSecret {
    SwarmSecret::from_bytes([n; 32])
}

pub(super) fn invite_id(n: u8) -> InviteId {
    InviteId::from_bytes([n; 16])
}

pub(super) fn founded() -> SwarmRecord {
    SwarmRecord::found(&key(FOUNDER), "lab".parse().unwrap(), [2; 16], secret(0))
}

/// A ticket of the node with key `n`, read back from its text.
pub(super) fn ticket(record: &mut SwarmRecord, n: u8, invite: u8, terms: InviteTerms) -> Ticket {
    let issued = record.invite(&key(n), invite_id(invite), terms, Some(NOW)).unwrap().apply(record);
    Ticket::new(record.founding().clone(), issued, vec![(id(n), Vec::new())]).to_string().parse().unwrap()
}

pub(super) fn open_ticket(record: &mut SwarmRecord, n: u8, invite: u8) -> Ticket {
    ticket(record, n, invite, InviteTerms { uses_max: 100, ttl_ms: None })
}

pub(super) fn request(ticket: &Ticket) -> JoinRequest {
    JoinRequest { swarm: ticket.founding().id(), invite: ticket.invite().clone() }
}

pub(super) fn admit(
    admitter: &mut SwarmRecord,
    n: u8,
    ticket: &Ticket,
    joiner: u8,
) -> Result<Admitted, Refusal> {
    Ok(admitter.admit(&key(n), &request(ticket), id(joiner), Some(NOW))?.apply(admitter))
}

/// Joiner `joiner` is admitted by the node with key `n`.
pub(super) fn join(admitter: &mut SwarmRecord, n: u8, ticket: &Ticket, joiner: u8) -> SwarmRecord {
    let mut record = SwarmRecord::pending(ticket.clone(), id(joiner)).unwrap();
    let admitted = admit(admitter, n, ticket, joiner).unwrap();
    assert_eq!(record.take_up(&admitted).unwrap().apply(&mut record), Learned::Stays);
    record
}

/// The founder and the members of `keys`, all admitted by it.
pub(super) fn swarm<const N: usize>(keys: [u8; N]) -> (SwarmRecord, [SwarmRecord; N]) {
    let mut founder = founded();
    let ticket = open_ticket(&mut founder, FOUNDER, 200);
    let members = keys.map(|n| join(&mut founder, FOUNDER, &ticket, n));
    (founder, members)
}

pub(super) fn make_delegate(founder: &mut SwarmRecord, delegate: &mut SwarmRecord, n: u8, quota: u32) {
    let delegation = founder.delegate(&key(FOUNDER), id(n), quota).unwrap().apply(founder);
    delegate.accept(&delegation).unwrap().apply(delegate);
    assert_eq!((delegate.role(), delegate.quota_left()), (Role::Delegate, Some(quota)));
}

/// `peer` shows what it has to `checker`.
pub(super) fn meet(checker: &mut SwarmRecord, peer: &SwarmRecord) -> Result<Seen, Stranger> {
    let credential = peer.credential().unwrap();
    Ok(checker.is_member(peer.me, &credential)?.apply(checker))
}

pub(super) fn tell(member: &mut SwarmRecord, epoch: &NewEpoch) -> Learned {
    member.learn(&epoch.notice, Some(&epoch.secret)).unwrap().apply(member)
}

pub(super) fn renew(from: &mut SwarmRecord, n: u8, peer: &mut SwarmRecord) -> Result<Learned, Stranger> {
    let credential: Credential = peer.credential().unwrap();
    let admitted = from.renew(&key(n), peer.me, &credential)?.apply(from);
    Ok(peer.take_up(&admitted).unwrap().apply(peer))
}
