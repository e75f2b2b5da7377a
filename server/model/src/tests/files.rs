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
fn what_other_writers_and_newer_versions_write_is_read() {
    for descr in ["|u1", "<u1", ">u1", "=u1", "u1"] {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}");
        assert_eq!(read_u8(&npy(&header, &[7, 9])).unwrap(), (vec![2], vec![7, 9]), "{descr}");
        for version in [2, 3] {
            let text = header.as_bytes();
            let length = (text.len() as u32).to_le_bytes();
            let file = [b"\x93NUMPY", &[version, 0][..], &length[..], text, &[7, 9]].concat();
            assert_eq!(read_u8(&file).unwrap(), (vec![2], vec![7, 9]));
            (0..file.len()).for_each(|end| assert!(read_u8(&file[..end]).is_err()));
        }
    }
    let huge = [&b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..], &[0; 100]].concat();
    assert!(read_u8(&huge).is_err());
}

/// Thing, reason, remedy, in one line.
#[test]
fn messages_say_what_is_there_and_what_to_do() {
    let said = |descr: &str, order: &str, shape: &str| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        let text = read_u8(&npy(&header, &[1, 2, 3, 4, 5, 6])).unwrap_err().to_string();
        assert_eq!(text.lines().count(), 1);
        text
    };
    let types =
        [("<f4", "float32"), ("<f8", "float64"), ("|b1", "bool"), ("<i8", "int64"), ("<U3", "\"<U3\"")];
    for (descr, name) in types {
        let text = said(descr, "False", "(6,)");
        assert!(text.contains(&format!("{name}, and uint8 is needed")) && text.contains("astype"), "{text}");
    }
    assert!(said("|u1", "True", "(6,)").contains("ascontiguousarray"));
    assert!(said("|u1", "False", "(7,)").contains("6 bytes of values"));
    assert!(read_u8(b"not an array").unwrap_err().to_string().contains("numpy.save"));
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
    version[6] = 4;
    assert!(read_u8(&version).unwrap_err().to_string().contains("version 4"));
}
