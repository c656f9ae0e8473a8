//! What a peer's frames may cost: frames that move no data have to be paid for by traffic.
//!
//! HTTP/2 lets a peer make work for nothing: PING and SETTINGS that have to be acknowledged, streams opened only to be
//! reset (CVE-2023-44487), PRIORITY, CONTINUATION. None of it is wrong by itself, so none of it can be refused by itself.
//! A connection has an account instead. Bytes of messages, either way, pay into it, and so does time, slowly; frames that
//! only steer are paid from it. Clients that measure the path with a PING for every few kilobytes (gRPC does) stay far in
//! credit, a flood is overdrawn within a second. The library bounds the rest: header lists, small DATA frames, resets it is
//! made to send (CVE-2025-8671).
//!
//! A request that its client gives up before it was answered costs more than its RST_STREAM: the provider may have begun to
//! work for nothing. Only the driver sees that, so it says so; see [`Meter::given_up`].
//!
//! The library answers nearly every broken frame with PROTOCOL_ERROR. What RFC 9113 gives a code of its own, and what can be
//! seen at a frame's head, is therefore judged here.

use crate::instant::Instant;
use h2::Reason;

/// The account of one connection, and where in the peer's frames it stands.
#[derive(Debug)]
pub struct Meter {
    /// Bytes until the next frame's head.
    skip: usize,
    head: [u8; FRAME_HEAD],
    have: usize,
    credit: u64,
    debt: u64,
    refilled: Instant,
    block: Block,
    /// No frame has come yet.
    first: bool,
    /// Of the SETTINGS frame that is being read, the part of a setting that has come.
    setting: Option<([u8; SETTING], usize)>,
    broken: Option<Reason>,
}

/// Whether a header block is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// No.
    Closed,
    /// The last frame of it is being read, and ends with `skip`.
    Ending,
    /// CONTINUATION has to follow.
    Open,
}

/// Frame types (RFC 9113 §6).
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

// === impl Meter ===

impl Meter {
    /// The account of a connection whose frames begin after `preface` bytes.
    pub fn new(preface: usize, now: Instant) -> Self {
        Meter {
            skip: preface,
            head: [0; FRAME_HEAD],
            have: 0,
            credit: CREDIT_MAX,
            debt: 0,
            refilled: now,
            block: Block::Closed,
            first: true,
            setting: None,
            broken: None,
        }
    }

    /// These bytes came from the peer. How many of them may be read: all of them, but for a frame that [`Meter::broken`]
    /// speaks of, and what follows it.
    pub fn received(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let passed = self.skip.min(bytes.len() - at);
            if self.setting.is_some() {
                self.read_settings(&bytes[at..at + passed]);
            }
            if self.broken.is_some() {
                return at;
            }
            self.skip -= passed;
            at += passed;
            if self.skip == 0 && self.block == Block::Ending {
                self.block = Block::Closed;
            }
            if at == bytes.len() {
                return at;
            }
            let start = at;
            let taken = (FRAME_HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
            self.have += taken;
            at += taken;
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.begin_frame();
            }
            if self.broken.is_some() {
                return start;
            }
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = len;
        let acknowledges = flags & FLAG_ACK != 0;
        if std::mem::take(&mut self.first) && (kind != frame::SETTINGS || acknowledges) {
            // RFC 9113 §3.4.
            self.broken = Some(Reason::PROTOCOL_ERROR);
        } else if self.block != Block::Open && !has_room(kind, flags, len) {
            // Inside a header block any other frame is an error already, and not this one.
            self.broken = Some(Reason::FRAME_SIZE_ERROR);
        }
        self.setting = (kind == frame::SETTINGS && len > 0).then_some(([0; SETTING], 0));
        match kind {
            frame::DATA | frame::HEADERS => self.earn(len),
            frame::RST_STREAM => self.debt += COST_RESET,
            frame::SETTINGS | frame::PING if !acknowledges => self.debt += COST_ANSWERED,
            frame::CONTINUATION | frame::GOAWAY => self.debt += COST_ANSWERED,
            frame::WINDOW_UPDATE => self.debt += COST_WINDOW,
            // Acknowledgements nobody asked for, PRIORITY, and what we do not know.
            _ => self.debt += COST_OTHER,
        }
        if kind == frame::HEADERS || kind == frame::CONTINUATION {
            let ends = flags & FLAG_END_HEADERS != 0;
            self.block = match (ends, len) {
                (false, _) => Block::Open,
                (true, 0) => Block::Closed,
                (true, _) => Block::Ending,
            };
        }
    }

    /// Reads what SETTINGS say, for the one value that has a code of its own (RFC 9113 §6.5.2).
    fn read_settings(&mut self, bytes: &[u8]) {
        let Some((setting, have)) = &mut self.setting else { return };
        for byte in bytes {
            setting[*have] = *byte;
            *have = (*have + 1) % SETTING;
            let [a, b, top, ..] = *setting;
            if *have == 0 && u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE && top & 0x80 != 0 {
                self.broken = Some(Reason::FLOW_CONTROL_ERROR);
            }
        }
    }

    /// What the peer's last frame broke, if it did: the connection has to end with this.
    pub fn broken(&self) -> Option<Reason> {
        self.broken
    }

    /// The peer gave this many requests up soon after it had sent them, unanswered. Of `streams` that may be under way at once
    /// it can do so with all of them twice in a row (somebody leaves a page before it is there, and the next one); then its
    /// account is empty, unless traffic or time paid for it.
    pub fn given_up(&mut self, requests: u64, streams: u32) {
        let whole = CREDIT_MAX / (2 * u64::from(streams.max(GIVEN_UP_MIN)));
        // The RST_STREAM of each is paid already.
        self.debt += requests.saturating_mul(whole.saturating_sub(COST_RESET));
    }

    /// This many bytes went to the peer.
    pub fn sent(&mut self, bytes: usize) {
        self.earn(bytes);
    }

    fn earn(&mut self, bytes: usize) {
        self.credit = (self.credit + bytes as u64).min(CREDIT_MAX);
    }

    /// Whether anything was bought since [`Meter::is_overdrawn`] was last asked.
    pub fn owes(&self) -> bool {
        self.debt > 0
    }

    /// Settles the account; whether it is overdrawn.
    pub fn is_overdrawn(&mut self, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.refilled);
        let gift = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX).saturating_mul(CREDIT_A_SECOND) / 1000;
        if gift > 0 {
            self.refilled = now;
            self.credit = self.credit.saturating_add(gift).min(CREDIT_MAX);
        }
        let overdrawn = self.debt > self.credit;
        self.credit = self.credit.saturating_sub(self.debt);
        self.debt = 0;
        overdrawn
    }

    /// Whether the peer owes the rest of a header block: until it comes, nothing else may be sent on the connection.
    pub fn is_in_header_block(&self) -> bool {
        self.block != Block::Closed
    }
}

/// Whether a frame can be this long: RFC 9113 §4.2 and §6. PRIORITY would be an error of its stream only; §5.4.1 lets it be
/// one of the connection.
fn has_room(kind: u8, flags: u8, len: usize) -> bool {
    let padding = usize::from(flags & FLAG_PADDED != 0);
    match kind {
        frame::HEADERS if flags & FLAG_PRIORITY != 0 => len >= padding + 5,
        frame::DATA | frame::HEADERS => len >= padding,
        frame::PRIORITY => len == 5,
        frame::RST_STREAM | frame::WINDOW_UPDATE => len == 4,
        frame::SETTINGS if flags & FLAG_ACK != 0 => len == 0,
        frame::SETTINGS => len.is_multiple_of(SETTING),
        frame::PING => len == 8,
        frame::GOAWAY => len >= 8,
        _ => true,
    }
}

/// Bytes of a frame's head (RFC 9113 §4.1).
const FRAME_HEAD: usize = 9;

const FLAG_ACK: u8 = 0x1;

const FLAG_END_HEADERS: u8 = 0x4;

const FLAG_PADDED: u8 = 0x8;

const FLAG_PRIORITY: u8 = 0x20;

/// Bytes of one setting: two of its name, four of its value.
const SETTING: usize = 6;

/// SETTINGS_INITIAL_WINDOW_SIZE: at most 2^31-1.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What an account holds at most, and begins with: a thousand resets, four thousand PINGs.
const CREDIT_MAX: u64 = 256 * 1024;

/// What time pays: thirty resets a second, or a hundred PINGs.
const CREDIT_A_SECOND: u64 = 8 * 1024;

/// A stream given up, however far its request had come.
const COST_RESET: u64 = 256;

/// Where fewer streams may be under way at once, as many requests as if it were these may be given up.
const GIVEN_UP_MIN: u32 = 32;

/// A frame that we have to answer, or to keep.
const COST_ANSWERED: u64 = 64;

/// A frame that changes what we may send. Receivers send one for little data.
const COST_WINDOW: u64 = 8;

/// Any other frame.
const COST_OTHER: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::time::Duration;

    /// A connection whose SETTINGS have come.
    fn meter(now: Instant) -> Meter {
        let mut meter = Meter::new(0, now);
        assert_eq!(meter.received(&frame(frame::SETTINGS, 0, 0)), FRAME_HEAD);
        meter
    }

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0, (len >> 8) as u8, len as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + len, b'x');
        bytes
    }

    /// How many of these frames a connection takes at once.
    fn taken(bytes: &[u8]) -> usize {
        let now = clock::now();
        let mut meter = meter(now);
        meter.debt = 0;
        (0..100_000)
            .find(|_| {
                meter.received(bytes);
                meter.is_overdrawn(now)
            })
            .unwrap_or(usize::MAX)
    }

    #[test]
    fn floods_are_overdrawn_and_traffic_is_not() {
        assert_eq!(taken(&frame(frame::PING, 0, 8)), 4096);
        assert_eq!(taken(&frame(frame::SETTINGS, 0, 6)), 4096);
        assert_eq!(taken(&frame(2, 0, 5)), 16 * 1024);
        let reset = [frame(frame::HEADERS, 5, 40), frame(frame::RST_STREAM, 0, 4)].concat();
        assert!((1000..1500).contains(&taken(&reset)), "{}", taken(&reset));
        let measured = [frame(frame::DATA, 0, 4096), frame(frame::PING, 0, 8), frame(frame::WINDOW_UPDATE, 0, 4)];
        assert_eq!(taken(&measured.concat()), usize::MAX);
    }

    #[test]
    fn all_that_is_under_way_may_be_given_up_twice_and_then_slowly() {
        for (streams, most) in [(1, 64), (32, 64), (128, 256), (256, 512), (100_000, 1024)] {
            let now = clock::now();
            let mut meter = meter(now);
            meter.debt = 0;
            let reset = frame(frame::RST_STREAM, 0, 4);
            let taken = (0..100_000).find(|_| {
                meter.received(&reset);
                meter.given_up(1, streams);
                meter.is_overdrawn(now)
            });
            assert_eq!(taken, Some(most), "{streams}");
        }
    }

    #[test]
    fn what_is_sent_pays_for_what_comes() {
        let now = clock::now();
        let mut meter = meter(now);
        for _ in 0..100_000 {
            meter.received(&frame(frame::WINDOW_UPDATE, 0, 4));
            meter.received(&frame(frame::WINDOW_UPDATE, 0, 4));
            meter.sent(29);
            assert!(!meter.is_overdrawn(now));
        }
    }

    #[test]
    fn time_pays_slowly() {
        let start = clock::now();
        let mut meter = meter(start);
        for second in 0..600 {
            for _ in 0..100 {
                meter.received(&frame(frame::PING, 0, 8));
            }
            assert!(!meter.is_overdrawn(start + Duration::from_secs(second)));
        }
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(frame::SETTINGS, 0, 18));
        bytes.extend(frame(frame::HEADERS, 0, 10));
        for cut in 0..bytes.len() {
            let mut meter = Meter::new(24, clock::now());
            meter.received(&bytes[..cut]);
            meter.received(&bytes[cut..]);
            assert!(meter.is_in_header_block(), "{cut}");
            assert_eq!(meter.debt, COST_ANSWERED, "{cut}");
            meter.received(&frame(frame::CONTINUATION, FLAG_END_HEADERS, 3)[..11]);
            assert!(meter.is_in_header_block(), "{cut}");
            meter.received(b"x");
            assert!(!meter.is_in_header_block(), "{cut}");
        }
    }

    #[test]
    fn a_broken_frame_is_found_however_the_bytes_are_cut_and_goes_no_further() {
        let window = |value: u32| [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..], &value.to_be_bytes()].concat();
        let cases = [
            (frame(frame::PING, 0, 7), Some(Reason::FRAME_SIZE_ERROR)),
            (frame(frame::SETTINGS, FLAG_ACK, 6), Some(Reason::FRAME_SIZE_ERROR)),
            (frame(frame::HEADERS, FLAG_PRIORITY | FLAG_PADDED, 5), Some(Reason::FRAME_SIZE_ERROR)),
            (frame(frame::HEADERS, FLAG_PRIORITY | FLAG_PADDED, 6), None),
            (frame(frame::GOAWAY, 0, 8), None),
            (frame(0xee, 0, 1), None),
            (window(0x7fff_ffff), None),
            (window(0x8000_0000), Some(Reason::FLOW_CONTROL_ERROR)),
        ];
        for (broken, reason) in cases {
            let bytes = [frame(frame::SETTINGS, 0, 0), broken].concat();
            for cut in 0..bytes.len() {
                let mut meter = Meter::new(0, clock::now());
                let first = meter.received(&bytes[..cut]);
                let both = if first < cut { first } else { first + meter.received(&bytes[cut..]) };
                assert_eq!(meter.broken(), reason, "{cut}");
                assert_eq!(both == bytes.len(), reason.is_none(), "{cut}");
                assert!(both >= FRAME_HEAD, "what came before is read: {cut}");
            }
        }
    }

    #[test]
    fn settings_come_first() {
        for (kind, flags) in [(frame::PING, 0), (frame::HEADERS, 5), (frame::SETTINGS, FLAG_ACK)] {
            let mut meter = Meter::new(0, clock::now());
            assert_eq!(meter.received(&frame(kind, flags, 8)), 0);
            assert_eq!(meter.broken(), Some(Reason::PROTOCOL_ERROR));
        }
    }
}
