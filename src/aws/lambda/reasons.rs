//! What to do about a function that failed, by the reason code of its state or of its last update.
//!
//! A pure table. Codes are those of `StateReasonCode` and `LastUpdateStatusReasonCode` in Lambda's API, which says what
//! they are called and no more.

/// The next step for a reason code; `None` for one that is new.
#[must_use]
pub fn fix(code: &str) -> Option<&'static str> {
    Some(match code {
        "ImageAccessDenied" => {
            "let Lambda read the repository: push with `--create-repository`, which also adds what the policy of an \
             existing one lacks; a KMS key of the repository must let the function's role decrypt"
        }
        "ImageDeleted" => {
            "the image is not in the repository any more: push again, and let no lifecycle policy expire images in use"
        }
        "InvalidImage" => {
            "Lambda cannot unpack or start the image: `cargo lambda-image verify` names every rule it breaks"
        }
        "FunctionError.InvalidEntryPoint" => {
            "the image's ENTRYPOINT is not a program in it, or was built for another architecture: see `--entrypoint`, \
             and clear an override by `aws lambda update-function-configuration --image-config '{}'`"
        }
        "FunctionError.InvalidWorkingDirectory" => {
            "the image's WORKDIR is not a directory in it: see `--working-directory`"
        }
        "FunctionError.PermissionDenied" => {
            "the entry point cannot be executed by Lambda's unprivileged user: check modes in images made elsewhere"
        }
        "FunctionError" | "FunctionError.RuntimeInitError" => {
            "the function ended or failed before it took its first event: its log in CloudWatch says why, and the \
             image can be run by a container engine with Lambda's emulator"
        }
        "FunctionError.InitTimeout" => {
            "the function took too long to start: give it more memory, which brings more CPU, or load less at start"
        }
        "FunctionError.InitResourceExhausted" => "the function ran out of memory as it started: give it more memory",
        "FunctionError.ExtensionInitError" => {
            "an extension in `/opt/extensions` of the image failed to start: see its log"
        }
        "FunctionError.TooManyExtensions" => "leave some extensions out of `/opt/extensions` of the image",
        "InsufficientRolePermissions" => {
            "the function's role lacks permissions: one in a VPC needs `AWSLambdaVPCAccessExecutionRole`"
        }
        "InvalidConfiguration" => {
            "settings of the function contradict each other: `aws lambda get-function-configuration` shows them"
        }
        "InvalidRuntime" => "a function with an image has no runtime of its own: create it anew",
        "InvalidZipFileException" => "a zip function cannot run an image: create another function",
        "InvalidSubnet" => "a subnet of the function is gone: set its VPC configuration again",
        "InvalidSecurityGroup" => "a security group of the function is gone: set its VPC configuration again",
        "SubnetOutOfIPAddresses" => "the subnets of the function have no free addresses: add larger ones",
        "EniLimitExceeded" => "the VPC is at its quota of network interfaces: delete some, or ask AWS for more",
        "DisallowedByVpcEncryptionControl" => {
            "the VPC only lets encrypted traffic through: exclude Lambda in its encryption control, or use another VPC"
        }
        "EC2RequestLimitExceeded" => "the account makes more calls of EC2 than AWS takes: run this again later",
        "EFSMountFailure" | "EFSMountTimeout" | "EFSMountConnectivityError" => {
            "the file system cannot be mounted: check its mount targets, port 2049 in the security groups, and that the \
             function's role may mount it"
        }
        "EFSIOError" => "the file system failed: check its throughput and burst credits, then run this again",
        "DisabledKMSKey" => "enable the KMS key of the function's environment",
        "KMSKeyAccessDenied" => "let the function's role use the KMS key of its environment (`kms:Decrypt`)",
        "KMSKeyNotFound" => "the KMS key of the function's environment is gone: name another one",
        "InvalidStateKMSKey" => "the KMS key of the function's environment is about to be deleted: cancel that",
        "ServiceQuotaExceededException" => "a quota of the account is used up: ask AWS for more",
        "CapacityProviderScalingLimitExceeded" => "raise the maximum of the function's capacity provider",
        "VcpuLimitExceeded" => {
            "the account is at its quota of vCPUs: ask AWS for more, or lower what the function asks"
        }
        "InsufficientCapacity" => "AWS has too few machines of this kind just now: run this again later",
        "DependencyError" | "InternalError" => "AWS itself failed: run this again",
        "DrainingDurableExecutions" => "earlier executions of the function still run: run this again when they ended",
        "Idle" => "nobody called it for long: the next call fails, and wakes it",
        "Creating" | "Restoring" => "it is being made ready: run this again in some minutes",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_lambda::types::{LastUpdateStatusReasonCode, StateReasonCode};

    use super::*;

    #[test]
    fn every_reason_code_of_the_api_has_a_way_out() {
        let codes = StateReasonCode::values().iter().chain(LastUpdateStatusReasonCode::values());
        let without: Vec<_> = codes.filter(|code| fix(code).is_none()).collect();
        assert!(without.is_empty(), "no way out of {without:?}");
        assert_eq!(fix("SomethingNew"), None);
    }
}
