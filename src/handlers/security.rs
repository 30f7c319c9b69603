//! What a broker without authorizer and without authentication says of them: DescribeAcls, CreateAcls,
//! DeleteAcls (keys 29 to 31) and the delegation tokens (38 to 41). Nothing is kept and nothing looked
//! up: access control entries and tokens of a Kafka's directory stay there, unheeded.

use chronik_io::World;
use chronik_protocol::messages::create_acls_response::AclCreationResult;
use chronik_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use chronik_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, CreateDelegationTokenRequest,
    CreateDelegationTokenResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse, DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
    ExpireDelegationTokenRequest, ExpireDelegationTokenResponse, RenewDelegationTokenRequest,
    RenewDelegationTokenResponse,
};
use chronik_protocol::{ErrorCode, Str};

use super::api::{Api, Inline, Shape};
use super::call::Call;
use super::context::Context;
use super::session::Principal;

/// The number of `UNKNOWN` among kinds of resources, patterns, operations and permissions: Kafka takes a
/// request with one for no request at all.
const UNKNOWN: i8 = 0;

const NO_AUTHORIZER: &str = "No Authorizer is configured.";

/// Whoever asks over a plain connection is nobody, and gets no token (`DelegationTokenManager`).
const NOT_ALLOWED: ErrorCode = ErrorCode::DelegationTokenRequestNotAllowed;
/// A time that is not there.
const NO_TIME: i64 = -1;
/// From this version on the answer names who asked, besides whom the token is for (KIP-373).
const REQUESTER_VERSION: i16 = 3;

/// Kafka's own parser refuses kinds that are unknown.
fn known(mut kinds: impl Iterator<Item = i8>) -> Result<(), &'static str> {
    match kinds.any(|kind| kind == UNKNOWN) {
        true => Err("has a kind that is unknown"),
        false => Ok(()),
    }
}

/// What is said besides `error`, if that is that there is no authorizer.
fn sentence(error: ErrorCode, no_authorizer: &'static str) -> Option<Str> {
    (error == ErrorCode::SecurityDisabled).then(|| Str::from_static(no_authorizer))
}

impl Api for DescribeAclsRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeAclsResponse {
        DescribeAclsResponse {
            error_code: error.as_i16(),
            error_message: sentence(error, "No Authorizer is configured on the broker"),
            ..DescribeAclsResponse::default()
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let kinds = [
            self.resource_type_filter,
            self.pattern_type_filter,
            self.operation,
            self.permission_type,
        ];
        known(kinds.into_iter())
    }
}

impl Inline for DescribeAclsRequest {
    fn answer<W: World>(_: &Context<W>, call: &Call, request: Self) -> DescribeAclsResponse {
        request.refused(call, ErrorCode::SecurityDisabled)
    }
}

impl Api for CreateAclsRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> CreateAclsResponse {
        let refused = AclCreationResult {
            error_code: error.as_i16(),
            error_message: sentence(error, NO_AUTHORIZER),
            ..AclCreationResult::default()
        };
        CreateAclsResponse {
            results: vec![refused; self.creations.len()],
            ..CreateAclsResponse::default()
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        known(self.creations.iter().flat_map(|entry| {
            [
                entry.resource_type,
                entry.resource_pattern_type,
                entry.operation,
                entry.permission_type,
            ]
        }))
    }
}

impl Inline for CreateAclsRequest {
    fn answer<W: World>(_: &Context<W>, call: &Call, request: Self) -> CreateAclsResponse {
        request.refused(call, ErrorCode::SecurityDisabled)
    }
}

impl Api for DeleteAclsRequest {
    const SHAPE: Shape = Shape::Cluster;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> DeleteAclsResponse {
        let refused = DeleteAclsFilterResult {
            error_code: error.as_i16(),
            error_message: sentence(error, NO_AUTHORIZER),
            ..DeleteAclsFilterResult::default()
        };
        DeleteAclsResponse {
            filter_results: vec![refused; self.filters.len()],
            ..DeleteAclsResponse::default()
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        known(self.filters.iter().flat_map(|filter| {
            [
                filter.resource_type_filter,
                filter.pattern_type_filter,
                filter.operation,
                filter.permission_type,
            ]
        }))
    }
}

impl Inline for DeleteAclsRequest {
    fn answer<W: World>(_: &Context<W>, call: &Call, request: Self) -> DeleteAclsResponse {
        request.refused(call, ErrorCode::SecurityDisabled)
    }
}

impl Api for CreateDelegationTokenRequest {
    const SHAPE: Shape = Shape::Token;

    fn settle(&mut self) {}

    fn refused(&self, call: &Call, error: ErrorCode) -> CreateDelegationTokenResponse {
        let Principal { kind, name } = &call.session.principal;
        let (requester_kind, requester_name) = match call.version {
            ..REQUESTER_VERSION => (Str::default(), Str::default()),
            _ => (kind.clone(), name.clone()),
        };
        CreateDelegationTokenResponse {
            error_code: error.as_i16(),
            principal_type: kind.clone(),
            principal_name: name.clone(),
            token_requester_principal_type: requester_kind,
            token_requester_principal_name: requester_name,
            issue_timestamp_ms: NO_TIME,
            expiry_timestamp_ms: NO_TIME,
            max_timestamp_ms: NO_TIME,
            ..CreateDelegationTokenResponse::default()
        }
    }
}

impl Inline for CreateDelegationTokenRequest {
    fn answer<W: World>(
        _: &Context<W>,
        call: &Call,
        request: Self,
    ) -> CreateDelegationTokenResponse {
        request.refused(call, NOT_ALLOWED)
    }
}

impl Api for RenewDelegationTokenRequest {
    const SHAPE: Shape = Shape::Token;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> RenewDelegationTokenResponse {
        RenewDelegationTokenResponse {
            error_code: error.as_i16(),
            expiry_timestamp_ms: NO_TIME,
            ..RenewDelegationTokenResponse::default()
        }
    }
}

impl Inline for RenewDelegationTokenRequest {
    fn answer<W: World>(
        _: &Context<W>,
        call: &Call,
        request: Self,
    ) -> RenewDelegationTokenResponse {
        request.refused(call, NOT_ALLOWED)
    }
}

impl Api for ExpireDelegationTokenRequest {
    const SHAPE: Shape = Shape::Token;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> ExpireDelegationTokenResponse {
        ExpireDelegationTokenResponse {
            error_code: error.as_i16(),
            expiry_timestamp_ms: NO_TIME,
            ..ExpireDelegationTokenResponse::default()
        }
    }
}

impl Inline for ExpireDelegationTokenRequest {
    fn answer<W: World>(
        _: &Context<W>,
        call: &Call,
        request: Self,
    ) -> ExpireDelegationTokenResponse {
        request.refused(call, NOT_ALLOWED)
    }
}

impl Api for DescribeDelegationTokenRequest {
    const SHAPE: Shape = Shape::Token;

    fn settle(&mut self) {}

    fn refused(&self, _: &Call, error: ErrorCode) -> DescribeDelegationTokenResponse {
        DescribeDelegationTokenResponse {
            error_code: error.as_i16(),
            ..DescribeDelegationTokenResponse::default()
        }
    }
}

impl Inline for DescribeDelegationTokenRequest {
    fn answer<W: World>(
        _: &Context<W>,
        call: &Call,
        request: Self,
    ) -> DescribeDelegationTokenResponse {
        request.refused(call, NOT_ALLOWED)
    }
}
