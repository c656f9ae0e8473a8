//! HPACK (RFC 7541) for tests: an encoder whose every byte a test can choose, and a decoder that keeps a table.
//!
//! Written from the RFC and not from a library, so that a mistake of the library is not made twice. The Huffman code is
//! canonical: code words of one length count up in the order of their symbols, so the lengths are the whole table.

use std::collections::VecDeque;

/// Fields of a message, in order.
pub(super) type Fields = Vec<(String, String)>;

/// Reads the field blocks of one direction of one connection.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest entry first.
    table: VecDeque<(String, String)>,
    /// How large the table may be at the moment.
    limit: usize,
    /// How large the table may be made: what our SETTINGS allow.
    allowed: usize,
}

/// Bytes of one block that are still to be read.
#[derive(Debug)]
struct Block<'a>(&'a [u8]);

// === Writing ===

/// A field block: every field a literal without indexing, its name written out, no Huffman code.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// One field: a literal without indexing, its name written out, no Huffman code.
pub(super) fn literal(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![WITHOUT_INDEXING], string(name), string(value)].concat()
}

/// One field: a literal that enters the table.
pub(super) fn literal_indexed(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![INCREMENTAL], string(name), string(value)].concat()
}

/// A field that stands in a table.
pub(super) fn indexed(index: usize) -> Vec<u8> {
    integer(INDEXED, 7, index)
}

/// A change of the table's size.
pub(super) fn table_size(size: usize) -> Vec<u8> {
    integer(TABLE_SIZE, 5, size)
}

/// An integer with a prefix of `bits` bits, behind the bits of `pattern` (§5.1).
pub(super) fn integer(pattern: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![pattern | u8::try_from(value).expect("it fits the prefix")];
    }
    let mut bytes = vec![pattern | u8::try_from(most).expect("a prefix has at most eight bits")];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

/// A string literal as it is (§5.2).
pub(super) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [integer(0, 7, text.len()), text.to_vec()].concat()
}

/// A string literal in the Huffman code, padded with the bits of EOS as §5.2 wants it.
pub(super) fn huffman_string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let coded = huffman(text.as_ref());
    [integer(HUFFMAN, 7, coded.len()), coded].concat()
}

fn huffman(text: &[u8]) -> Vec<u8> {
    let code = code();
    let mut bits: Vec<bool> = Vec::new();
    for byte in text {
        let (word, length) = code[usize::from(*byte)];
        bits.extend((0..length).rev().map(|bit| word >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
}

/// The code word and its length for each symbol; the last is EOS.
fn code() -> Vec<(u32, u32)> {
    let mut order: Vec<usize> = (0..HUFFMAN_LENGTHS.len()).collect();
    order.sort_by_key(|symbol| (HUFFMAN_LENGTHS[*symbol], *symbol));
    let mut code = vec![(0, 0); HUFFMAN_LENGTHS.len()];
    let (mut next, mut length) = (0_u32, HUFFMAN_LENGTHS[order[0]]);
    for symbol in order {
        next <<= HUFFMAN_LENGTHS[symbol] - length;
        length = HUFFMAN_LENGTHS[symbol];
        code[symbol] = (next, length);
        next += 1;
    }
    code
}

// === impl Decoder ===

impl Decoder {
    /// With an empty table that may grow to what HTTP/2 begins with.
    pub(super) fn new() -> Self {
        Decoder { table: VecDeque::new(), limit: 4096, allowed: 4096 }
    }

    /// What our SETTINGS allow from here on.
    pub(super) fn allow(&mut self, size: usize) {
        (self.allowed, self.limit) = (size, self.limit.min(size));
        self.evict();
    }

    /// How large the table is, as §4.1 counts.
    pub(super) fn size(&self) -> usize {
        self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
    }

    /// Reads a whole field block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Fields {
        let mut block = Block(block);
        let mut fields = Vec::new();
        while let Some(first) = block.0.first().copied() {
            if first & INDEXED != 0 {
                let index = block.integer(7);
                fields.push(self.entry(index));
            } else if first & INCREMENTAL != 0 {
                let field = self.literal(&mut block, 6);
                fields.push(field.clone());
                self.table.push_front(field);
                self.evict();
            } else if first & TABLE_SIZE != 0 {
                assert!(fields.is_empty(), "a table size update behind a field");
                self.limit = block.integer(5);
                assert!(self.limit <= self.allowed, "a table of {} where {} is allowed", self.limit, self.allowed);
                self.evict();
            } else {
                fields.push(self.literal(&mut block, 4));
            }
        }
        fields
    }

    fn literal(&self, block: &mut Block<'_>, bits: u32) -> (String, String) {
        let name = match block.integer(bits) {
            0 => block.string(),
            index => self.entry(index).0,
        };
        (name, block.string())
    }

    fn entry(&self, index: usize) -> (String, String) {
        assert!(index > 0, "index 0 is no entry");
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let fixed = STATIC_TABLE.get(index - 1).copied().map(own);
        let entry = fixed.or_else(|| self.table.get(index - 1 - STATIC_TABLE.len()).cloned());
        entry.unwrap_or_else(|| panic!("there is no entry {index}"))
    }

    fn evict(&mut self) {
        while self.size() > self.limit {
            self.table.pop_back();
        }
    }
}

// === impl Block ===

impl Block<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().expect("the block goes on");
        self.0 = rest;
        *first
    }

    fn integer(&mut self, bits: u32) -> usize {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()) & most;
        if value < most {
            return value;
        }
        let mut shift = 0;
        loop {
            let byte = usize::from(self.byte());
            value += (byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                return value;
            }
        }
    }

    fn string(&mut self) -> String {
        let coded = self.0.first().is_some_and(|byte| byte & HUFFMAN != 0);
        let length = self.integer(7);
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        let text = if coded { unhuffman(text) } else { text.to_vec() };
        text.into_iter().map(char::from).collect()
    }
}

fn unhuffman(coded: &[u8]) -> Vec<u8> {
    let words: std::collections::HashMap<(u32, u32), usize> =
        code().into_iter().enumerate().map(|(symbol, word)| (word, symbol)).collect();
    let (mut word, mut length, mut text) = (0_u32, 0_u32, Vec::new());
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1))) {
        (word, length) = (word << 1 | bit, length + 1);
        if let Some(symbol) = words.get(&(word, length)) {
            text.push(u8::try_from(*symbol).expect("EOS is no text"));
            (word, length) = (0, 0);
        }
    }
    assert!(length < 8 && word == (1 << length) - 1, "padding that is not the beginning of EOS");
    text
}

/// First bits of an indexed field.
pub(super) const INDEXED: u8 = 0b1000_0000;
/// First bits of a literal that enters the table.
pub(super) const INCREMENTAL: u8 = 0b0100_0000;
/// First bits of a change of the table's size.
pub(super) const TABLE_SIZE: u8 = 0b0010_0000;
/// First bits of a literal that nobody may ever index.
pub(super) const NEVER_INDEXED: u8 = 0b0001_0000;
/// First bits of a literal that does not enter the table.
pub(super) const WITHOUT_INDEXING: u8 = 0b0000_0000;
/// The first bit of a string in the Huffman code.
pub(super) const HUFFMAN: u8 = 0b1000_0000;

/// Appendix A.
pub(super) const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Appendix B: how many bits the code word of each byte has, and of EOS.
#[rustfmt::skip]
const HUFFMAN_LENGTHS: [u32; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[test]
fn the_huffman_code_is_the_one_of_the_rfc() {
    // C.4.1 and C.6.1.
    assert_eq!(huffman(b"www.example.com"), b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
    assert_eq!(huffman(b"302"), b"\x64\x02");
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unhuffman(&huffman(&all)), all);
    assert_eq!(code()[256], (0x3fff_ffff, 30));
}

#[test]
fn the_decoder_reads_the_examples_of_the_rfc() {
    // C.4: three requests, Huffman code, one table.
    let mut decoder = Decoder::new();
    let authority = (":authority".to_owned(), "www.example.com".to_owned());
    let first = decoder.decode(b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
    assert_eq!((&first[3], decoder.size()), (&authority, 57));
    let second = decoder.decode(b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf");
    assert_eq!(second[3..], [authority, ("cache-control".to_owned(), "no-cache".to_owned())]);
    assert_eq!(decoder.size(), 110);
    decoder.decode(b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf");
    assert_eq!((decoder.size(), decoder.entry(62).0.as_str()), (164, "custom-key"));
    // C.1: integers.
    assert_eq!((integer(0, 5, 10), integer(0, 5, 1337), integer(0, 8, 42)), (vec![10], vec![31, 154, 10], vec![42]));
}
