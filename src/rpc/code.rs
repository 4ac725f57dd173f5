//! The names of gRPC's status codes.

use tonic::Code;

/// By number: the name in gRPC's specification, and the name in go-grpc and its dashboards.
const NAMES: [(&str, &str); CODES] = [
    ("OK", "OK"),
    ("CANCELLED", "Canceled"),
    ("UNKNOWN", "Unknown"),
    ("INVALID_ARGUMENT", "InvalidArgument"),
    ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
    ("NOT_FOUND", "NotFound"),
    ("ALREADY_EXISTS", "AlreadyExists"),
    ("PERMISSION_DENIED", "PermissionDenied"),
    ("RESOURCE_EXHAUSTED", "ResourceExhausted"),
    ("FAILED_PRECONDITION", "FailedPrecondition"),
    ("ABORTED", "Aborted"),
    ("OUT_OF_RANGE", "OutOfRange"),
    ("UNIMPLEMENTED", "Unimplemented"),
    ("INTERNAL", "Internal"),
    ("UNAVAILABLE", "Unavailable"),
    ("DATA_LOSS", "DataLoss"),
    ("UNAUTHENTICATED", "Unauthenticated"),
];

/// The number of codes.
pub const CODES: usize = 17;

/// The name of a code in gRPC's specification, like `RESOURCE_EXHAUSTED`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    NAMES[code as usize].0
}

/// The names of all codes in go-grpc, by number, like `ResourceExhausted`.
pub fn go_code_names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_codes() {
        for (number, (name, go_name)) in (0..).zip(&NAMES) {
            let code = Code::from_i32(number);
            assert_eq!(name.replace('_', "").to_lowercase(), format!("{code:?}").to_lowercase());
            let spec_name = go_name.to_uppercase().replace("CANCELED", "CANCELLED");
            assert_eq!(name.replace('_', ""), spec_name);
        }
    }
}
