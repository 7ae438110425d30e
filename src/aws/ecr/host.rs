//! Tells Amazon ECR's private registries from all other hosts.
//!
//! Credentials of an AWS account go to whatever is recognised here, so the rule is anchored at both ends, closed (a
//! region must belong to the partition of its suffix) and blind to letter case. Nothing here talks to anyone.

use std::fmt;

/// The form of a registry's name, which says by what kind of endpoint it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stack {
    /// `ACCOUNT.dkr.ecr.REGION.SUFFIX`, IPv4 only.
    Plain,
    /// `ACCOUNT.dkr-ecr.REGION.on.aws`, IPv4 and IPv6.
    Dual,
}

/// A part of AWS with its own accounts, and the names its registries have.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Partition {
    /// As in ARNs.
    name: &'static str,
    /// What its regions begin with; the commercial partition has all that no other claims.
    region_prefix: &'static str,
    suffix: &'static str,
    /// Absent where no dual-stack name is documented.
    dual_stack_suffix: Option<&'static str>,
}

/// The commercial partition is the last: its prefix fits every region.
static PARTITIONS: [Partition; 8] = [
    partition("aws-cn", "cn-", "amazonaws.com.cn", Some("on.amazonwebservices.com.cn")),
    partition("aws-us-gov", "us-gov-", "amazonaws.com", Some("on.aws")),
    partition("aws-eusc", "eusc-", "amazonaws.eu", None),
    partition("aws-iso", "us-iso-", "c2s.ic.gov", None),
    partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", None),
    partition("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", None),
    partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", None),
    partition("aws", "", "amazonaws.com", Some("on.aws")),
];

const fn partition(
    name: &'static str,
    region_prefix: &'static str,
    suffix: &'static str,
    dual_stack_suffix: Option<&'static str>,
) -> Partition {
    Partition { name, region_prefix, suffix, dual_stack_suffix }
}

/// The host of an account's private registry in one region. It is shown in lower case and without a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryHost {
    account: String,
    region: String,
    partition: &'static Partition,
    fips: bool,
    stack: Stack,
}

impl RegistryHost {
    /// Reads `HOST` or `HOST:443`. `None` for everything that is not surely a private registry of ECR, which includes
    /// such a host on another port.
    #[must_use]
    pub fn parse(registry: &str) -> Option<Self> {
        let registry = registry.to_ascii_lowercase();
        let host = registry.strip_suffix(":443").unwrap_or(&registry);
        let mut labels = host.splitn(3, '.');
        let (account, service, rest) = (labels.next()?, labels.next()?, labels.next()?);
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (stack, fips, rest) = match service {
            "dkr-ecr" => (Stack::Dual, false, rest),
            "dkr-ecr-fips" => (Stack::Dual, true, rest),
            "dkr" => match rest.split_once('.')? {
                ("ecr", rest) => (Stack::Plain, false, rest),
                ("ecr-fips", rest) => (Stack::Plain, true, rest),
                _ => return None,
            },
            _ => return None,
        };
        let (region, suffix) = rest.split_once('.')?;
        let partition = PARTITIONS.iter().find(|partition| region.starts_with(partition.region_prefix))?;
        let expected = match stack {
            Stack::Plain => Some(partition.suffix),
            Stack::Dual => partition.dual_stack_suffix,
        };
        (is_region(region) && expected == Some(suffix)).then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
            partition,
            fips,
            stack,
        })
    }

    /// The registry of `account` in `region`; `None` unless both have the shape of one.
    #[must_use]
    pub fn of(account: &str, region: &str) -> Option<Self> {
        let partition = PARTITIONS.iter().find(|partition| region.starts_with(partition.region_prefix))?;
        Self::parse(&format!("{account}.dkr.ecr.{region}.{}", partition.suffix))
    }

    /// The twelve digits of the account.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The region, as in `eu-central-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The partition as ARNs name it, as in `aws-cn`.
    #[must_use]
    pub fn partition(&self) -> &'static str {
        self.partition.name
    }

    /// Whether the endpoint is one validated under FIPS 140.
    #[must_use]
    pub fn is_fips(&self) -> bool {
        self.fips
    }

    /// Whether the endpoint is reached by IPv6 too.
    #[must_use]
    pub fn is_dual_stack(&self) -> bool {
        self.stack == Stack::Dual
    }

    /// The same registry by its FIPS endpoint.
    #[must_use]
    pub fn with_fips(self) -> Self {
        Self { fips: true, ..self }
    }

    /// The same registry by the name that Lambda takes in image URIs: it refuses FIPS names (Lambda developer guide,
    /// "Create a Lambda function using a container image") and documents no dual-stack ones.
    #[must_use]
    pub fn for_lambda(&self) -> Self {
        Self { fips: false, stack: Stack::Plain, ..self.clone() }
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, region, partition, .. } = self;
        let fips = if self.fips { "-fips" } else { "" };
        match (self.stack, partition.dual_stack_suffix) {
            (Stack::Dual, Some(suffix)) => write!(f, "{account}.dkr-ecr{fips}.{region}.{suffix}"),
            _ => write!(f, "{account}.dkr.ecr{fips}.{region}.{}", partition.suffix),
        }
    }
}

/// Whether `text` has the shape of a region, as in `us-gov-west-1`: letters, then words, then a number.
pub(in crate::aws) fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let (Some((number, words)), true) = (parts.split_last(), parts.len() >= 3) else { return false };
    matches!(number.len(), 1..=2)
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && words.iter().all(|word| (2..=12).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_recognised_and_shown_as_it_was() {
        for (host, region, partition, fips, dual_stack) in [
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "us-east-1", "aws", false, false),
            ("123456789012.dkr.ecr.ap-southeast-7.amazonaws.com", "ap-southeast-7", "aws", false, false),
            ("123456789012.dkr.ecr-fips.us-west-2.amazonaws.com", "us-west-2", "aws", true, false),
            ("123456789012.dkr-ecr.eu-central-1.on.aws", "eu-central-1", "aws", false, true),
            ("123456789012.dkr-ecr-fips.us-east-2.on.aws", "us-east-2", "aws", true, true),
            ("123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1", "aws-cn", false, false),
            ("123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "cn-north-1", "aws-cn", false, true),
            ("123456789012.dkr.ecr.us-gov-west-1.amazonaws.com", "us-gov-west-1", "aws-us-gov", false, false),
            ("123456789012.dkr.ecr-fips.us-gov-east-1.amazonaws.com", "us-gov-east-1", "aws-us-gov", true, false),
            ("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", "aws-eusc", false, false),
            ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", "us-iso-east-1", "aws-iso", false, false),
            ("123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1", "aws-iso-b", false, false),
            ("123456789012.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1", "aws-iso-e", false, false),
            ("123456789012.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1", "aws-iso-f", false, false),
        ] {
            let parsed = RegistryHost::parse(host).unwrap_or_else(|| panic!("{host}"));
            assert_eq!((parsed.account(), parsed.region(), parsed.partition()), ("123456789012", region, partition));
            assert_eq!((parsed.is_fips(), parsed.is_dual_stack()), (fips, dual_stack), "{host}");
            assert_eq!(parsed.to_string(), host);
            assert_eq!(RegistryHost::parse(&host.to_uppercase()), Some(parsed.clone()), "case of {host}");
            assert_eq!(RegistryHost::parse(&format!("{host}:443")), Some(parsed), "port of {host}");
        }
    }

    #[test]
    fn look_alikes_are_other_hosts() {
        for host in [
            "",
            "public.ecr.aws",
            "localhost:5000",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.io",
            "x.dkr.ecr.us-east-1.amazonaws.com",
            "x.dkr.ecr.us-east-1.amazonaws.com.evil.io",
            "evil.io.123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "evil.io/123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com@evil.io",
            "evil@123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/evil",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com?",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com#",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com\n",
            " 123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com:",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com:80",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com:8443",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com:443:443",
            "https://123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "12345678901.dkr.ecr.us-east-1.amazonaws.com",
            "1234567890123.dkr.ecr.us-east-1.amazonaws.com",
            "١٢٣٤٥٦٧٨٩٠١٢.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws\u{ff0e}com",
            "123456789012.dkr.ecr.us-east-1.evil.amazonaws.com",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.us-east.amazonaws.com",
            "123456789012.dkr.ecr.us--1.amazonaws.com",
            "123456789012.dkr.ecr.-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1x.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonawsXcom",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.cn",
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.amazonaws.eu",
            "123456789012.dkr.ecr.us-east-1.on.aws",
            "123456789012.dkr-ecr.us-east-1.amazonaws.com",
            "123456789012.dkr-ecr.eusc-de-east-1.on.aws",
            "123456789012.dkrXecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr-fip.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.s3.amazonaws.com",
        ] {
            assert_eq!(RegistryHost::parse(host), None, "{host}");
        }
    }

    #[test]
    fn an_account_has_one_registry_in_each_region() {
        for (region, host) in [
            ("eu-west-1", Some("123456789012.dkr.ecr.eu-west-1.amazonaws.com")),
            ("cn-north-1", Some("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn")),
            ("eusc-de-east-1", Some("123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu")),
            ("nowhere", None),
        ] {
            assert_eq!(RegistryHost::of("123456789012", region).map(|host| host.to_string()).as_deref(), host);
        }
        assert_eq!(RegistryHost::of("me", "eu-west-1"), None);
    }

    #[test]
    fn lambda_is_given_the_plain_host() {
        for host in [
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
            "123456789012.dkr-ecr.us-east-1.on.aws",
            "123456789012.dkr-ecr-fips.us-east-1.on.aws",
        ] {
            let host = RegistryHost::parse(host).expect("a host of the table");
            assert_eq!(host.for_lambda().to_string(), "123456789012.dkr.ecr.us-east-1.amazonaws.com");
        }
    }
}
