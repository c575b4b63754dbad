use super::*;

fn listed(devices: Vec<DeviceReport>) -> Document {
    Document::new(Outcome::List(ListReport { loader_version: "1.3.239".to_owned(), devices }))
}

fn device(name: &str) -> DeviceReport {
    DeviceReport { name: name.to_owned(), uuid: Some("0A".repeat(16)), ..DeviceReport::default() }
}

#[test]
fn what_is_written_is_read() {
    let heaps = vec![HeapReport { size_bytes: u64::MAX, device_local: true, budget_bytes: Some(7) }];
    let list = listed(vec![DeviceReport { kind: DeviceKind::Discrete, heaps, uuid: None, ..device("a") }]);
    let kernels = vec![KernelReport { name: "vector_add".to_owned(), n_compared: 9, mismatches: 1, elapsed_ms: 0.125 }];
    let check = Document::new(Outcome::Check(CheckReport {
        passed: false,
        mismatches: 1,
        elapsed_ms: 1.5,
        runtime: "vulkan".to_owned(),
        software: true,
        device: CheckedDevice { name: "llvmpipe".to_owned(), uuid: None, pci_address: None },
        kernels,
    }));
    let error = Document::new(Outcome::Error(ProbeError::new(ErrorCode::NoLoader, "libvulkan.so.1")));
    for document in [list, check, error] {
        let text = serde_json::to_vec(&document).unwrap();
        assert_eq!(Document::parse(&text).unwrap(), document);
    }
}

#[test]
fn a_newer_probe_is_understood() {
    let text = br#"{"schema_version": 9, "probe_version": "7.1.0", "mood": {"good": [true]}, "list": {
        "layers": ["x"], "devices": [{"name": "G\u001b[31mPU", "kind": "quantum", "vendor_id": 4098, "tensor_cores": 5,
        "uuid": "00112233-4455-6677-8899-AABBCCDDEEFF", "heaps": [{"size_bytes": 4, "colour": "red"}]}]}}"#;
    let Document { schema_version, outcome: Outcome::List(list), .. } = Document::parse(text).unwrap() else {
        panic!("no list")
    };
    assert_eq!((schema_version, list.devices.len()), (9, 1));
    let device = &list.devices[0];
    assert_eq!((device.name.as_str(), device.kind, device.vendor_id), ("G[31mPU", DeviceKind::Other, 0x1002));
    assert_eq!(device.uuid.as_deref(), Some("00112233445566778899aabbccddeeff"));
    let text = br#"{"schema_version": 2, "probe_version": "1", "error": {"code": "ON_FIRE", "message": "m"}}"#;
    let Outcome::Error(error) = Document::parse(text).unwrap().outcome else { panic!("no error") };
    assert_eq!((error.code, error.code.exit_code()), (ErrorCode::Unknown, 7));
}

#[test]
fn what_is_too_much_or_no_document_is_refused() {
    let refused = |text: &[u8]| Document::parse(text).unwrap_err().to_string();
    for garbage in [&b""[..], b"hello", b"{}", br#"{"schema_version":1,"probe_version":"1"}"#, b"\xff\xfe"] {
        assert!(matches!(Document::parse(garbage), Err(DocumentError::Json(_))), "{garbage:?}");
    }
    assert_eq!(refused(&vec![b' '; DOCUMENT_BYTES_MAX + 1]), "1048577 bytes, at most 1048576 are read");
    let zero = br#"{"schema_version": 0, "probe_version": "1", "list": {}}"#;
    assert_eq!(refused(zero), "schema_version 0");
    let many = serde_json::to_vec(&listed(vec![DeviceReport::default(); DEVICES_MAX + 1])).unwrap();
    assert_eq!(refused(&many), "257 devices, at most 256 are read");
    let heaps = vec![HeapReport::default(); HEAPS_MAX + 1];
    let many = serde_json::to_vec(&listed(vec![DeviceReport { heaps, ..device("a") }])).unwrap();
    assert_eq!(refused(&many), "17 heaps, at most 16 are read");
    let long = serde_json::to_vec(&listed(vec![device(&"ü".repeat(900))])).unwrap();
    let Outcome::List(list) = Document::parse(&long).unwrap().outcome else { panic!("no list") };
    assert_eq!(list.devices[0].name.chars().count(), TEXT_CHARS_MAX);
}

#[test]
fn a_uuid_has_32_digits() {
    assert_eq!(canonical_uuid(&"0A".repeat(16)), Some("0a".repeat(16)));
    for wrong in ["", "GPU-1", &"0g".repeat(16), &"00".repeat(17)] {
        assert_eq!(canonical_uuid(wrong), None, "{wrong}");
    }
}
