//! What a broker without authorizer and without authentication says of them: DescribeAcls, CreateAcls,
//! DeleteAcls (keys 29 to 31) and the delegation tokens (38 to 41). Nothing is kept and nothing looked
//! up: access control entries and tokens of a Kafka's directory stay there, unheeded.

use chronik_protocol::messages::create_acls_response::AclCreationResult;
use chronik_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use chronik_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, CreateDelegationTokenResponse, DeleteAclsRequest,
    DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResponse, DescribeDelegationTokenResponse,
    ExpireDelegationTokenResponse, RenewDelegationTokenResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::call::Call;

/// The number of `UNKNOWN` among kinds of resources, patterns, operations and permissions: Kafka takes a
/// request with one for no request at all.
const UNKNOWN: i8 = 0;

/// Answers DescribeAcls; `None` for what ends the connection.
pub(super) fn describe_acls(request: &DescribeAclsRequest) -> Option<DescribeAclsResponse> {
    let kinds = [
        request.resource_type_filter,
        request.pattern_type_filter,
        request.operation,
        request.permission_type,
    ];
    (!kinds.contains(&UNKNOWN)).then(|| DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.as_i16(),
        error_message: Some(Str::from_static(
            "No Authorizer is configured on the broker",
        )),
        ..DescribeAclsResponse::default()
    })
}

/// Answers CreateAcls; `None` for what ends the connection.
pub(super) fn create_acls(request: &CreateAclsRequest) -> Option<CreateAclsResponse> {
    let mut kinds = request.creations.iter().flat_map(|entry| {
        [
            entry.resource_type,
            entry.resource_pattern_type,
            entry.operation,
            entry.permission_type,
        ]
    });
    let refused = AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.as_i16(),
        error_message: Some(NO_AUTHORIZER),
        ..AclCreationResult::default()
    };
    (!kinds.any(|kind| kind == UNKNOWN)).then(|| CreateAclsResponse {
        results: vec![refused; request.creations.len()],
        ..CreateAclsResponse::default()
    })
}

/// Answers DeleteAcls; `None` for what ends the connection.
pub(super) fn delete_acls(request: &DeleteAclsRequest) -> Option<DeleteAclsResponse> {
    let mut kinds = request.filters.iter().flat_map(|filter| {
        [
            filter.resource_type_filter,
            filter.pattern_type_filter,
            filter.operation,
            filter.permission_type,
        ]
    });
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.as_i16(),
        error_message: Some(NO_AUTHORIZER),
        ..DeleteAclsFilterResult::default()
    };
    (!kinds.any(|kind| kind == UNKNOWN)).then(|| DeleteAclsResponse {
        filter_results: vec![refused; request.filters.len()],
        ..DeleteAclsResponse::default()
    })
}

const NO_AUTHORIZER: Str = Str::from_static("No Authorizer is configured.");

/// Whoever asks over a plain connection is nobody, and gets no token (`DelegationTokenManager`).
const NOT_ALLOWED: i16 = ErrorCode::DelegationTokenRequestNotAllowed.as_i16();
/// A time that is not there.
const NO_TIME: i64 = -1;

/// From this version on the answer names who asked, besides whom the token is for (KIP-373).
const REQUESTER_VERSION: i16 = 3;

/// Answers CreateDelegationToken.
pub(super) fn create_token(call: &Call) -> CreateDelegationTokenResponse {
    let (kind, name) = (Str::from_static("User"), Str::from_static("ANONYMOUS"));
    let (requester_kind, requester_name) = match call.version {
        ..REQUESTER_VERSION => (Str::default(), Str::default()),
        _ => (kind.clone(), name.clone()),
    };
    CreateDelegationTokenResponse {
        error_code: NOT_ALLOWED,
        principal_type: kind,
        principal_name: name,
        token_requester_principal_type: requester_kind,
        token_requester_principal_name: requester_name,
        issue_timestamp_ms: NO_TIME,
        expiry_timestamp_ms: NO_TIME,
        max_timestamp_ms: NO_TIME,
        ..CreateDelegationTokenResponse::default()
    }
}

/// Answers RenewDelegationToken.
pub(super) fn renew_token() -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse {
        error_code: NOT_ALLOWED,
        expiry_timestamp_ms: NO_TIME,
        ..RenewDelegationTokenResponse::default()
    }
}

/// Answers ExpireDelegationToken.
pub(super) fn expire_token() -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse {
        error_code: NOT_ALLOWED,
        expiry_timestamp_ms: NO_TIME,
        ..ExpireDelegationTokenResponse::default()
    }
}

/// Answers DescribeDelegationToken.
pub(super) fn describe_tokens() -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse {
        error_code: NOT_ALLOWED,
        ..DescribeDelegationTokenResponse::default()
    }
}
