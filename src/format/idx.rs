//! IDX, the format of MNIST's files: unsigned bytes with a header of sizes.

use crate::error::{Error, Result};

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub values: Vec<u8>,
}

/// Read a file's bytes.
pub fn read(bytes: &[u8]) -> Result<Idx> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(Error::invalid("idx: the file is compressed with gzip, which is not supported").help("unpack it with gunzip first"));
    }
    let &[0, 0, kind, rank] = bytes.first_chunk().unwrap_or(&[1; 4]) else {
        return Err(Error::invalid(match bytes.first_chunk::<4>() {
            Some(b) => format!("idx: not an IDX file: it begins with the bytes {b:02x?}, not with two zeros"),
            None => format!("idx: {} bytes are no IDX file: truncated?", bytes.len()),
        }));
    };
    if kind != 8 {
        let name = match kind {
            0x09 => "signed bytes",
            0x0b => "16-bit integers",
            0x0c => "32-bit integers",
            0x0d => "32-bit floats",
            0x0e => "64-bit floats",
            _ => return Err(Error::invalid(format!("idx: not an IDX file: no element type has the code 0x{kind:02x}"))),
        };
        return Err(Error::invalid(format!("idx: the file holds {name}; only unsigned bytes are supported")));
    }
    let start = 4 + 4 * usize::from(rank);
    let Some(header) = bytes.get(4..start) else {
        return Err(Error::invalid(format!("idx: truncated: a header of {start} bytes in a file of {}", bytes.len())));
    };
    let shape: Vec<usize> = header.chunks_exact(4).map(|b| b.iter().fold(0, |n, &b| n << 8 | usize::from(b))).collect();
    let want = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    let have = bytes.len() - start;
    match want {
        Some(want) if want == have && rank > 0 => Ok(Idx { shape, values: bytes[start..].to_vec() }),
        Some(want) if rank > 0 => {
            let fault = if have < want { "truncated" } else { "bytes left over" };
            Err(Error::invalid(format!("idx: {fault}: the header says {shape:?}, which is {want} bytes; the file holds {have}")))
        }
        _ => Err(Error::invalid(format!("idx: damaged header: sizes {shape:?}"))),
    }
}

/// Read a file of images: `[count, rows, columns]`.
pub fn images(bytes: &[u8]) -> Result<Idx> {
    of_rank(bytes, 3, "images [count, rows, columns]")
}

/// Read a file of labels: `[count]`.
pub fn labels(bytes: &[u8]) -> Result<Idx> {
    of_rank(bytes, 1, "labels [count]")
}

fn of_rank(bytes: &[u8], rank: usize, what: &str) -> Result<Idx> {
    let idx = read(bytes)?;
    if idx.shape.len() == rank { Ok(idx) } else { Err(Error::invalid(format!("idx: expected {what}, the file holds {:?}", idx.shape))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: u8, shape: &[u32], values: &[u8]) -> Vec<u8> {
        let mut b = vec![0, 0, kind, shape.len() as u8];
        shape.iter().for_each(|s| b.extend(s.to_be_bytes()));
        b.extend(values);
        b
    }

    #[test]
    fn images_and_labels_are_read() {
        let b = file(8, &[2, 1, 3], &[1, 2, 3, 4, 5, 255]);
        assert_eq!(images(&b).unwrap(), Idx { shape: vec![2, 1, 3], values: vec![1, 2, 3, 4, 5, 255] });
        assert_eq!(labels(&file(8, &[2], &[7, 9])).unwrap().values, [7, 9]);
        assert_eq!(labels(&b).unwrap_err().message(), "idx: expected labels [count], the file holds [2, 1, 3]");
    }

    #[test]
    fn headers_are_checked() {
        let message = |b: &[u8]| read(b).unwrap_err().to_string();
        assert_eq!(message(b"\0\0"), "idx: 2 bytes are no IDX file: truncated?");
        assert_eq!(message(b"a,b,c\n"), "idx: not an IDX file: it begins with the bytes [61, 2c, 62, 2c], not with two zeros");
        assert!(message(&[0x1f, 0x8b, 8, 0]).contains("gzip"));
        assert_eq!(message(&file(0x0d, &[1], &[0; 4])), "idx: the file holds 32-bit floats; only unsigned bytes are supported");
        assert_eq!(message(&file(0x42, &[1], &[0])), "idx: not an IDX file: no element type has the code 0x42");
        assert_eq!(message(&file(8, &[3, 2], &[])[..9]), "idx: truncated: a header of 12 bytes in a file of 9");
        assert_eq!(message(&file(8, &[3, 2], &[0; 5])), "idx: truncated: the header says [3, 2], which is 6 bytes; the file holds 5");
        assert_eq!(message(&file(8, &[1], &[0; 2])), "idx: bytes left over: the header says [1], which is 1 bytes; the file holds 2");
        assert!(message(&file(8, &[u32::MAX; 4], &[])).starts_with("idx: damaged header"));
        assert!(message(&file(8, &[], &[1])).starts_with("idx: damaged header"));
    }
}
