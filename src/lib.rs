//! `edge` turns documents into chunks and vectors on low-power devices.
//!
//! # The rooms
//! Arrows point down; `tests/tidy.rs` holds the code to this list.
//!
//! ```text
//! cli         one file a subcommand: reads what the user names, writes what was asked for
//! api         the control socket of a running node: HTTP on a Unix socket, both ends
//! node        carries out: the actors aggregator, worker and mesh; runs in this process
//! config      defaults < file < EDGE_* < flags, every value with its source
//! store       one LMDB environment and one key in a data directory, held by one process
//! inference   segment, chunk, tokenise, batch, embed; the model folder
//! power       what the device says of itself: CPU, heat, supply, who is at it
//! transport   QUIC between keys that were proved, and bounded frames on its streams
//! discovery   who else is there: mDNS, bootstrap addresses, what a peer may tell
//! proto       decisions without IO: ledger, queue, budget, neighbours, dialler, membership, backoff, rates
//! wire        what crosses a socket or lies on disk: ids, records, messages, their exact bytes
//! ```
//!
//! `store`, `inference`, `power`, `transport` and `discovery` do not know each other; `proto` knows `wire` alone, and
//! `wire` nobody.
//!
//! # The life of one job, on one machine
//! 1. `cli::embed` walks the paths, reads each document once and cuts it by [`inference::cut`], a pure function
//!    of its bytes, into **segments** of at most [`inference::SEGMENT_BYTES_MAX`]. Of each it notes the place and
//!    the [`wire::ContentKey`]: BLAKE3 of text, options, chunker version, model.
//! 2. What the store has under its key is done. The rest is read again, checked against its key, and goes as a
//!    **job** to [`node::LocalRun`].
//! 3. A compute thread of [`inference::Pool`] chunks and tokenises it, sorts the chunks of its window by length,
//!    packs them into batches by tokens, and has them embedded: by [`inference::BertModel`], straight on matrix
//!    kernels, where the graph is of the form that `models/export.py` writes; by tract where it is any other.
//! 4. Results are written in batches, each one durable transaction. Only then is the key reported as done.
//! 5. When all of a document is done and its turn has come, `cli::embed` reads its text and results once more
//!    and writes the lines, in source order.
//!
//! # The life of one job, in a swarm
//! 1. As above, but the job goes through the control socket ([`api`]) to the [`node`] that runs here, or that the command
//!    brought with it: to its `aggregator`, which keeps its text in memory and asks the [`proto::Ledger`] who may have it.
//!    Its demand is told to neighbours, and by them to theirs ([`proto::Neighbours`]); workers that hear of it come, wait
//!    in a long poll, and get leases in proportion to their speed.
//! 2. A worker writes the job to its queue, runs it, and writes the result in its place: each step is a transaction
//!    that the [`proto::Queue`] asked for. A courier delivers it until the aggregator has answered.
//! 3. The aggregator checks what came, writes it with its receipt, and only then answers the worker and tells whoever
//!    asked. A worker that falls silent loses its leases; what was late but right is taken once.
//!
//! # What is lent
//! `node`'s governor has the sensors of `power` read on a thread of their own and hands each [`proto::budget::Reading`] to the
//! [`proto::budget::Policy`], which says how many threads may run for what share of the time, and why no more. The worker
//! follows: a valve before each batch holds all compute threads to it, and where nothing may run they stop between two
//! operators, their jobs go back, and the model is dropped. What it took is booked by day and swarm. The owner's own work waits
//! for heat and memory alone, by the same policy with limits of its own (`node::own_limits`), alone and in a node.
//!
//! # What always holds
//! - A result is a pure function of its key; who computes it, with what in the same batch, changes vectors by less
//!   than cosine 0.9999 and nothing else at all.
//! - Nothing is reported as done, and no exit code 0 given, before the disk has it. So SIGKILL at any moment costs
//!   what was not yet written, and the same command goes on from there.
//! - One bad document never fails a batch: it is named with its reason, the others are in the output.
//! - Memory does not grow with the input, but for a few hundred bytes a document and a segment.
//! - Text goes to members of the swarm that its owner named, and to nobody else. Without `--swarm` no
//!   network socket is opened.
//! - What a peer sends is bounded before it is read, and judged before it counts.

pub mod api;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod inference;
pub mod node;
pub mod power;
pub mod proto;
pub mod store;
pub mod transport;
pub mod wire;
