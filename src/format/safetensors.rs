//! safetensors: named tensors with a JSON header. Equal tensors and metadata give identical bytes, in whatever order they come.

use crate::error::{Error, Result};
use crate::tensor::{DType, Data, F16, Meta, Shape};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo};
use std::collections::BTreeMap;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Element type and shape.
    pub meta: Meta,
    /// Its values.
    pub data: Data,
}

impl Entry {
    /// An entry, if there are as many values of that type as the shape says.
    pub fn new(name: impl Into<String>, shape: impl Into<Shape>, data: impl Into<Data>) -> Result<Entry> {
        let (name, data) = (name.into(), data.into());
        let meta = Meta::new(data.dtype(), shape);
        check(&name, &meta, &data)?;
        Ok(Entry { name, meta, data })
    }
}

/// A file's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    /// The tensors, in the order in which they lie in the file.
    pub tensors: Vec<Entry>,
    /// The metadata: names and texts.
    pub metadata: BTreeMap<String, String>,
}

impl File {
    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

/// Read a file's bytes. bf16 comes as f32, i64 as i32 where every value fits.
pub fn read(bytes: &[u8]) -> Result<File> {
    let (header, info) = SafeTensors::read_metadata(bytes).map_err(|e| foreign(bytes, e))?;
    let data = &bytes[8 + header..];
    let mut tensors = Vec::new();
    // By place, then by name, for tensors without elements share a place.
    let mut infos: Vec<(String, &TensorInfo)> = info.tensors().into_iter().collect();
    infos.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    for (name, info) in infos {
        let (start, end) = info.data_offsets;
        let data = values(&name, info.dtype, &data[start..end])?;
        let shape = Shape::try_new(&info.shape).map_err(|e| e.context(format_args!("safetensors: {name}")))?;
        let meta = Meta::new(data.dtype(), shape);
        check(&name, &meta, &data)?;
        tensors.push(Entry { name, meta, data });
    }
    let metadata = info.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(File { tensors, metadata })
}

/// The bytes of a file with these tensors. They are put in a fixed order: wider elements first, so that all lie aligned, then by name.
pub fn write(file: &File) -> Result<Vec<u8>> {
    let mut order: Vec<&Entry> = file.tensors.iter().collect();
    order.sort_by(|a, b| (width(b.meta.dtype), &a.name).cmp(&(width(a.meta.dtype), &b.name)));

    // The header is joined here and not by the crate, which would write the metadata in the random order of a hash map.
    let mut fields = Vec::with_capacity(order.len() + 1);
    if !file.metadata.is_empty() {
        fields.push(format!("\"__metadata__\":{}", json(&file.metadata)?));
    }
    let mut names = std::collections::HashSet::new();
    let mut body = Vec::new();
    for entry in order {
        check(&entry.name, &entry.meta, &entry.data)?;
        if entry.name == "__metadata__" || !names.insert(&entry.name) {
            return Err(Error::invalid(format!("safetensors: a tensor cannot be named {}: the name is taken", entry.name)));
        }
        let start = body.len();
        match &entry.data {
            Data::Bool(v) => body.extend(v.iter().map(|&b| u8::from(b))),
            Data::F16(v) => body.extend(v.iter().flat_map(|h| h.0.to_le_bytes())),
            data => body.extend(data.to_bytes()),
        }
        let info = TensorInfo { dtype: dtype(entry.meta.dtype), shape: entry.meta.shape.to_vec(), data_offsets: (start, body.len()) };
        fields.push(format!("{}:{}", json(&entry.name)?, json(&info)?));
    }
    let mut header = format!("{{{}}}", fields.join(","));
    let padded = header.len().next_multiple_of(8);
    header.extend(std::iter::repeat_n(' ', padded - header.len()));

    let mut out = Vec::with_capacity(8 + header.len() + body.len());
    out.extend((header.len() as u64).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(body);
    Ok(out)
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::internal(format!("safetensors: cannot write the header: {e}")))
}

fn check(name: &str, meta: &Meta, data: &Data) -> Result<()> {
    if meta.numel() != data.len() || meta.dtype != data.dtype() {
        return Err(Error::shape(format!("safetensors: {name}: {meta} cannot be made of {} values of {}", data.len(), data.dtype())));
    }
    Ok(())
}

/// Bytes of an element in the file.
fn width(dtype: DType) -> usize {
    if dtype == DType::Bool { 1 } else { dtype.size() }
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::F64 => Dtype::F64,
        DType::I32 => Dtype::I32,
        DType::U32 => Dtype::U32,
        DType::Bool => Dtype::BOOL,
    }
}

fn values(name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Data> {
    let halves = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    Ok(match dtype {
        Dtype::F32 => Data::from_bytes(DType::F32, bytes),
        Dtype::F64 => Data::from_bytes(DType::F64, bytes),
        Dtype::I32 => Data::from_bytes(DType::I32, bytes),
        Dtype::U32 => Data::from_bytes(DType::U32, bytes),
        Dtype::BOOL => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        Dtype::BF16 => Data::F32(halves().map(|h| f32::from_bits(u32::from(h) << 16)).collect()),
        Dtype::F16 => Data::F16(halves().map(F16).collect()),
        Dtype::I64 => {
            let wide = bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned::<i64>);
            let fits = |v: i64| i32::try_from(v).map_err(|_| Error::invalid(format!("safetensors: {name}: {v} does not fit in i32")));
            Data::I32(wide.map(fits).collect::<Result<_>>()?)
        }
        other => {
            return Err(Error::invalid(format!("safetensors: {name}: element type {other} is not supported"))
                .help("supported are F32, F64, F16, BF16, I32, I64 with small values, U32 and BOOL"));
        }
    })
}

/// What is wrong with bytes that the crate refuses, in terms of the file.
fn foreign(bytes: &[u8], e: SafeTensorError) -> Error {
    let have = bytes.len();
    let header = bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    Error::invalid(match e {
        SafeTensorError::HeaderTooSmall => format!("safetensors: {have} bytes are no file: truncated, or not safetensors"),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            format!("safetensors: a header of {header} bytes in a file of {have}: truncated, or not safetensors")
        }
        SafeTensorError::InvalidHeader(e) => format!("safetensors: the header is not text: not safetensors, or damaged: {e}"),
        SafeTensorError::InvalidHeaderDeserialization(e) => format!("safetensors: the header does not parse: not safetensors, or damaged: {e}"),
        SafeTensorError::MetadataIncompleteBuffer => {
            let start = (8 + header as usize).min(have); // the crate has read a header of this length
            let promised = serde_json::from_slice::<Metadata>(&bytes[8..start]).map_or(0, |m| m.data_len());
            let fault = if promised > have - start { "truncated" } else { "bytes left over" };
            format!("safetensors: {fault}: the header describes {promised} bytes of values, the file holds {}", have - start)
        }
        e => format!("safetensors: damaged header: {e}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn sample() -> File {
        let tensors = vec![
            Entry::new("weight", [2, 2], [1.0f32, -0.0, f32::INFINITY, 1e-40]).unwrap(),
            Entry::new("mask", [3], [true, false, true]).unwrap(),
            Entry::new("index", [2], [i32::MIN, 7]).unwrap(),
            Entry::new("seed", [1], [u32::MAX]).unwrap(),
            Entry::new("wide", [], [std::f64::consts::PI]).unwrap(),
            Entry::new("none", [0, 4], Vec::<f32>::new()).unwrap(),
        ];
        let metadata = (0..20).map(|i| (format!("key {i}"), format!("\"{i}\"\n"))).collect();
        File { tensors, metadata }
    }

    #[test]
    fn what_was_written_is_read() {
        let file = sample();
        let back = read(&write(&file).unwrap()).unwrap();
        assert_eq!(back.metadata, file.metadata);
        assert_eq!(back.tensors.len(), 6);
        for t in &file.tensors {
            assert_eq!(back.get(&t.name), Some(t));
        }
        assert_eq!(read(&write(&File::default()).unwrap()).unwrap(), File::default());
    }

    #[test]
    fn equal_tensors_give_identical_bytes() {
        let bytes = write(&sample()).unwrap();
        let mut other = sample();
        other.tensors.reverse();
        assert_eq!(write(&other).unwrap(), bytes);
        assert_eq!(write(&read(&bytes).unwrap()).unwrap(), bytes);
        let crate_reads = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(crate_reads.tensor("weight").unwrap().shape(), [2, 2]);
    }

    #[test]
    fn other_types_are_read_where_they_fit() {
        let file = |dtype, shape: Vec<usize>, bytes: &[u8]| {
            let view = TensorView::new(dtype, shape, bytes).unwrap();
            read(&safetensors::serialize([("x", view)], None).unwrap()).map(|f| f.tensors[0].data.clone())
        };
        let halves: Vec<u8> = [0x3c00u16, 0xc000, 0x0001, 0x83ff, 0x7c00, 0x7bff].iter().flat_map(|h| h.to_le_bytes()).collect();
        let want = [1.0, -2.0, 2f32.powi(-24), -1023.0 * 2f32.powi(-24), f32::INFINITY, 65504.0].map(F16::from);
        assert_eq!(file(Dtype::F16, vec![6], &halves).unwrap(), Data::from(want));
        assert_eq!(file(Dtype::BF16, vec![2], &[0x80, 0x3f, 0x00, 0xc0]).unwrap(), Data::from([1.0f32, -2.0]));
        let long = |v: i64| file(Dtype::I64, vec![1], &v.to_le_bytes());
        assert_eq!(long(-5).unwrap(), Data::from([-5i32]));
        assert_eq!(long(1 << 40).unwrap_err().message(), "safetensors: x: 1099511627776 does not fit in i32");
        assert!(file(Dtype::U8, vec![1], &[1]).unwrap_err().message().starts_with("safetensors: x: element type U8 is not supported"));
        let nine = file(Dtype::F32, vec![1; 9], &[0; 4]).unwrap_err();
        assert_eq!(nine.message(), "safetensors: x: shape [1, 1, 1, 1, 1, 1, 1, 1, 1] has 9 dimensions, at most 8 are supported");
    }

    #[test]
    fn truncated_and_foreign_bytes_are_refused() {
        let bytes = write(&sample()).unwrap();
        for n in 0..bytes.len() {
            assert!(read(&bytes[..n]).unwrap_err().message().starts_with("safetensors: "), "{n} bytes");
        }
        let message = |b: &[u8]| read(b).unwrap_err().to_string();
        assert_eq!(message(&[]), "safetensors: 0 bytes are no file: truncated, or not safetensors");
        assert!(message(&bytes[..100]).contains("in a file of 100: truncated"));
        assert_eq!(message(&bytes[..bytes.len() - 1]), "safetensors: truncated: the header describes 39 bytes of values, the file holds 38");
        assert!(message(&[&bytes[..], b"x"].concat()).contains("bytes left over: the header describes 39 bytes of values, the file holds 40"));
        assert!(message(b"\x89PNG\r\n\x1a\n and so on, an image").contains("truncated, or not safetensors"));
        assert!(message(b"\x04\0\0\0\0\0\0\0oops").contains("does not parse"));
        assert!(message(b"\x02\0\0\0\0\0\0\0\xff\xfe").contains("is not text"));
    }

    #[test]
    fn entries_that_do_not_fit_are_refused() {
        let e = Entry::new("w", [3], [1.0f32]).unwrap_err();
        assert_eq!(e.message(), "safetensors: w: f32[3] cannot be made of 1 values of f32");
        let twice = File { tensors: vec![Entry::new("w", [1], [1.0f32]).unwrap(); 2], ..File::default() };
        assert!(write(&twice).unwrap_err().message().contains("the name is taken"));
    }
}
