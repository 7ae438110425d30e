//! What would stop a deployment, found before slow work: registries that Lambda takes no images from, functions that
//! are missing, that are archives, that run on another architecture.

use futures_util::{StreamExt as _, stream};

use super::name::FunctionName;
use super::{AT_ONCE, Asked, Create};
use crate::aws::ecr::host::RegistryHost;
use crate::aws::lambda::Lambda;
use crate::aws::lambda::function::{Function, Package, State};
use crate::event::Session;
use crate::platform::Architecture;
use crate::problem::{Problem, Result, together};

/// The registry that functions take their image from, which must be one of ECR and named as Lambda names it. `registry`
/// is as it was typed.
///
/// # Errors
/// Usage problems that name the way on.
pub fn registry(registry: &str) -> Result<RegistryHost> {
    let Some(host) = RegistryHost::parse(registry) else {
        return Err(Problem::usage(format!(
            "functions take images from private repositories of Amazon ECR only, and `{registry}` is another registry"
        ))
        .help("name a repository of ECR, or push without functions by `--no-function`"));
    };
    if host.is_fips() {
        return Err(Problem::usage(format!("Lambda takes no images by a FIPS name, as `{host}` is")).help(format!(
            "name it `{}`, and set `AWS_USE_FIPS_ENDPOINT=true` for FIPS endpoints all the same; or push without \
             functions by `--no-function`",
            host.for_lambda()
        )));
    }
    Ok(host)
}

/// Whether a function can be in the region of its image's registry.
///
/// # Errors
/// When its ARN says another region.
pub fn region(function: &FunctionName, host: &RegistryHost) -> Result<()> {
    match function.region() {
        Some(region) if region != host.region() => Err(Problem::usage(format!(
            "function `{function}` is in {region}, and takes no image from `{host}` in {}",
            host.region()
        ))
        .help(format!("push to a repository in {region}, from which functions there can take it"))),
        _ => Ok(()),
    }
}

/// Looks at every function before slow work, and returns those that are there. The architecture of an image is given if
/// it is known already; else [`suits`] has its say later.
///
/// # Errors
/// All that is wrong with any of them.
pub async fn preflight(
    asked: &[(Lambda, Asked, Option<Architecture>)],
    session: &Session,
) -> Result<Vec<Option<Function>>> {
    let all = asked.iter().map(async |(lambda, asked, architecture)| {
        let found = lambda.function(&asked.function.for_api(), None).await.map_err(|refusal| refusal.problem)?;
        let Some(function) = found else {
            return match asked.create {
                Some(_) => Ok(None),
                None => Err(missing(&asked.function, lambda.region())),
            };
        };
        suits(&asked.function, &function, *architecture)?;
        warn_of_overrides(&asked.function, &function, lambda.region(), session);
        Ok(Some(function))
    });
    let outcomes = stream::iter(all).buffered(AT_ONCE).collect().await;
    together(outcomes, "functions")
}

/// Whether a function can run an image of this architecture.
///
/// # Errors
/// When it cannot, with the way on.
pub fn suits(name: &FunctionName, function: &Function, image: Option<Architecture>) -> Result<()> {
    if function.package == Package::Zip {
        let role = function.role.as_deref().unwrap_or("ROLE");
        return Err(Problem::failed(format!("function `{name}` runs an archive, and Lambda cannot give it an image"))
            .help(format!(
                "let another function run the image, as by `--function {name}-image --create-function --role {role}`, \
                 or delete this one first: `aws lambda delete-function --function-name {name}`"
            )));
    }
    if function.state == State::Deleting {
        return Err(Problem::failed(format!("function `{name}` is being deleted"))
            .help("wait until it is gone, or name another function"));
    }
    let (Some(image), Some(runs_on)) = (image, function.architecture) else { return Ok(()) };
    if image == runs_on {
        return Ok(());
    }
    let flag = match runs_on {
        Architecture::Amd64 => "--x86-64",
        Architecture::Arm64 => "--arm64",
    };
    Err(Problem::refused(format!(
        "the image is for {}, but function `{name}` runs on {}",
        image.lambda(),
        runs_on.lambda()
    ))
    .help(format!("build for the function with `{flag}`, on a base for the same architecture")))
}

/// The problem of a function that does not exist and is not to be made.
pub(super) fn missing(name: &FunctionName, region: &str) -> Problem {
    Problem::failed(format!("function `{name}` does not exist in {region}")).help(
        "create it with `--create-function --role ARN`, or push with `--no-function` and create it from the image's \
         URI with the tool that keeps it",
    )
}

/// Lambda prefers a function's own settings to those of the image, silently.
fn warn_of_overrides(name: &FunctionName, function: &Function, region: &str, session: &Session) {
    let overrides = function.overrides.shown();
    if overrides.is_empty() {
        return;
    }
    let message = format!("function `{name}` has settings that win over the image's: {}", overrides.join(", "));
    let help = format!(
        "to have the image's: `aws lambda update-function-configuration --function-name {} --region {region} \
         --image-config '{{}}'`",
        name.for_api()
    );
    session.warn(&message, Some(&help));
}

/// The role of a function to be made.
///
/// # Errors
/// When it is not the ARN of a role.
pub fn role(create: &Create) -> Result<()> {
    let is_role = create.role.starts_with("arn:") && create.role.contains(":iam::") && create.role.contains(":role/");
    if is_role {
        return Ok(());
    }
    Err(Problem::usage(format!("`{}` is not the ARN of a role", create.role))
        .help("roles look like `arn:aws:iam::123456789012:role/NAME`; `aws iam list-roles` lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Exit;

    #[test]
    fn images_come_from_private_ecr_by_a_plain_name() {
        let account = "123456789012";
        assert!(registry(&format!("{account}.dkr.ecr.us-east-1.amazonaws.com")).is_ok());
        assert!(registry(&format!("{account}.dkr-ecr.us-east-1.on.aws")).is_ok());
        for other in ["localhost:5000", "public.ecr.aws", "ghcr.io"] {
            let problem = registry(other).expect_err(other);
            assert_eq!(problem.exit(), Exit::Usage);
            let expected = format!(
                "functions take images from private repositories of Amazon ECR only, and `{other}` is another registry"
            );
            assert_eq!(problem.message(), expected);
        }
        let problem = registry(&format!("{account}.dkr.ecr-fips.us-east-1.amazonaws.com")).expect_err("FIPS");
        let help = problem.next_step().expect("a way on");
        assert!(help.starts_with("name it `123456789012.dkr.ecr.us-east-1.amazonaws.com`"), "{help}");
    }

    #[test]
    fn a_function_elsewhere_takes_no_image_from_here() {
        let host = registry("123456789012.dkr.ecr.eu-west-1.amazonaws.com").expect("a registry");
        let arn = |region: &str| format!("arn:aws:lambda:{region}:123456789012:function:f").parse().expect("an ARN");
        assert!(region(&"f".parse().expect("a name"), &host).is_ok());
        assert!(region(&arn("eu-west-1"), &host).is_ok());
        let problem = region(&arn("us-east-1"), &host).expect_err("another region");
        let expected = "function `f` is in us-east-1, and takes no image from `123456789012.dkr.ecr.eu-west-1.amazonaws.com` in \
             eu-west-1";
        assert_eq!(problem.message(), expected);
    }

    #[test]
    fn roles_are_arns() {
        let create =
            |role: &str| Create { role: role.into(), memory_mb: None, timeout_seconds: None, env: Default::default() };
        assert!(role(&create("arn:aws:iam::123456789012:role/service-role/f")).is_ok());
        assert!(role(&create("arn:aws-cn:iam::123456789012:role/f")).is_ok());
        for other in ["f", "arn:aws:iam::123456789012:user/f", "arn:aws:lambda:eu-west-1:1:function:f"] {
            assert_eq!(role(&create(other)).expect_err(other).exit(), Exit::Usage);
        }
    }
}
