//! Reading `.npy`.

use crate::npy::{read_f32, read_u8};

/// A file with this header text and data, padded as NumPy does.
pub fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() + 1).next_multiple_of(64) + 54;
    let text = format!("{header:<width$}\n", width = length - 1);
    [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), data].concat()
}

#[test]
fn arrays_are_read() {
    let file = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", &[1, 2, 3, 4, 5, 6]);
    assert_eq!(read_u8(&file).unwrap(), (vec![2, 3], vec![1, 2, 3, 4, 5, 6]));
    let file = npy("{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}", &[0, 0, 128, 63, 0, 0, 0, 192]);
    assert_eq!(read_f32(&file).unwrap(), (vec![2], vec![1.0, -2.0]));
    assert!(read_u8(&file).is_err());
    let scalar = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", &[9]);
    assert_eq!(read_u8(&scalar).unwrap(), (vec![], vec![9]));
    let empty = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 7), }", &[]);
    assert_eq!(read_u8(&empty).unwrap(), (vec![0, 7], vec![]));
}

#[test]
fn other_files_are_refused() {
    for header in [
        "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }",
        "{'descr': '|i1', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-6,), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (18446744073709551615, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,6), }",
        "{'descr': '|u1', 'fortran_order': Maybe, 'shape': (6,), }",
        "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': '|u1', 'fortran_order': False, }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 6, }",
        "{'descr': '|u1', 'other': 1, 'fortran_order': False, 'shape': (6,), }",
        "{",
        "",
    ] {
        assert!(read_u8(&npy(header, &[1, 2, 3, 4, 5, 6])).is_err(), "{header}");
    }
    let file = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", &[1, 2, 3, 4, 5, 6]);
    for end in 0..file.len() {
        assert!(read_u8(&file[..end]).is_err());
    }
    assert!(read_u8(&[file.clone(), vec![0]].concat()).is_err());
    let mut version = file;
    version[6] = 2;
    assert!(read_u8(&version).is_err());
}
