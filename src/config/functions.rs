//! Which functions run an image, and how far each is brought: settings by the layer they come from, laid over each
//! other and then settled.

use std::collections::BTreeMap;

use crate::cli::FunctionArgs;
use crate::deploy::name::{self, FunctionName};
use crate::deploy::{Asked, Create, Release, check};
use crate::event::Session;
use crate::init::cargo_lambda::Function;
use crate::problem::{Problem, Result};

use super::destination::{Names, Repository};
use super::table::Table;

/// What one layer of configuration says of functions; what it leaves open is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FunctionSettings {
    functions: Option<Vec<String>>,
    create: Option<bool>,
    role: Option<String>,
    memory_mb: Option<u32>,
    timeout_seconds: Option<u32>,
    publish: Option<bool>,
    alias: Option<String>,
}

impl FunctionSettings {
    /// The settings of a table.
    pub(super) fn of_table(table: &Table) -> Self {
        Self {
            functions: table.function.clone().map(|words| words.0),
            create: table.create_function,
            role: table.role.clone(),
            memory_mb: table.memory,
            timeout_seconds: table.timeout,
            publish: table.publish,
            alias: table.alias.clone(),
        }
    }

    fn of_flags(flags: &FunctionArgs) -> Self {
        Self {
            functions: (!flags.function.is_empty()).then(|| flags.function.clone()),
            create: flags.create_function.then_some(true),
            role: flags.role.clone(),
            memory_mb: flags.memory,
            timeout_seconds: flags.timeout,
            publish: flags.publish.then_some(true),
            alias: flags.alias.clone(),
        }
    }

    /// These settings, and `lower` ones where these say nothing.
    #[must_use]
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            functions: self.functions.or(lower.functions),
            create: self.create.or(lower.create),
            role: self.role.or(lower.role),
            memory_mb: self.memory_mb.or(lower.memory_mb),
            timeout_seconds: self.timeout_seconds.or(lower.timeout_seconds),
            publish: self.publish.or(lower.publish),
            alias: self.alias.or(lower.alias),
        }
    }

    /// What is asked of each function of the image of these names, flags laid over all. `cargo_lambda` is what another
    /// tool's table says of functions to be created.
    ///
    /// # Errors
    /// Names that are none, a function to be created without a role, an image where no function can take it from.
    pub(super) fn settle(
        self,
        flags: &FunctionArgs,
        names: Names<'_>,
        repository: &Repository,
        cargo_lambda: &Function,
        session: &Session,
    ) -> Result<Vec<Asked>> {
        if flags.no_function {
            return Ok(Vec::new());
        }
        let settings = Self::of_flags(flags).over(self);
        let creates = settings.create.unwrap_or(false);
        let named = match settings.functions.clone() {
            Some(named) => named,
            // As `cargo lambda deploy` names it.
            None if creates => vec![names.bin.to_owned()],
            None => Vec::new(),
        };
        let mut functions: Vec<FunctionName> = Vec::new();
        for text in &named {
            let function = function(text, names)?;
            if !functions.contains(&function) {
                functions.push(function);
            }
        }
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        if let Repository::At { host, .. } = repository {
            let host = check::registry(host)?;
            functions.iter().try_for_each(|function| check::region(function, &host))?;
        }
        let release = settings.release()?;
        let create = if creates { Some(settings.create(names.bin, cargo_lambda, session)?) } else { None };
        let asked = |function| Asked {
            package: names.package.to_owned(),
            bin: names.bin.to_owned(),
            function,
            create: create.clone(),
            release: release.clone(),
        };
        Ok(functions.into_iter().map(asked).collect())
    }

    /// An alias needs a version to point to.
    fn release(&self) -> Result<Release> {
        match &self.alias {
            Some(alias) => match name::alias(alias) {
                Ok(()) => Ok(Release::Alias(alias.clone())),
                Err(why) => Err(Problem::usage(format!("`{alias}` is no name of an alias"))
                    .because(why)
                    .help("an alias is called as `live` or `beta-2` are")),
            },
            None if self.publish == Some(true) => Ok(Release::Version),
            None => Ok(Release::Code),
        }
    }

    fn create(&self, bin: &str, cargo_lambda: &Function, session: &Session) -> Result<Create> {
        let mut taken = Vec::new();
        let role = or_taken(&self.role, &cargo_lambda.role, "iam_role", &mut taken);
        let memory_mb = or_taken(&self.memory_mb, &cargo_lambda.memory_mb, "memory", &mut taken);
        let timeout_seconds = or_taken(&self.timeout_seconds, &cargo_lambda.timeout_seconds, "timeout", &mut taken);
        let env: BTreeMap<_, _> = cargo_lambda.env.clone();
        if !env.is_empty() {
            taken.push("env");
        }
        let Some(role) = role else {
            return Err(Problem::usage(format!("there is no role for the function of `{bin}` to be created with")).help(
                "name one with `--role arn:aws:iam::ACCOUNT:role/NAME`, which `lambda.amazonaws.com` may assume; `aws \
                 iam list-roles` lists them",
            ));
        };
        if !taken.is_empty() {
            let keys: Vec<_> = taken.iter().map(|key| format!("`{key}`")).collect();
            session.warn(
                &format!("{} of cargo-lambda's settings are taken for a created function", keys.join(", ")),
                Some("keys under `[package.metadata.lambda-image]` win over them"),
            );
        }
        let create = Create { role, memory_mb, timeout_seconds, env };
        check::role(&create)?;
        Ok(create)
    }
}

/// A setting of ours, or another tool's, which is noted then.
fn or_taken<T: Clone>(
    ours: &Option<T>,
    theirs: &Option<T>,
    key: &'static str,
    taken: &mut Vec<&'static str>,
) -> Option<T> {
    if ours.is_none() && theirs.is_some() {
        taken.push(key);
    }
    ours.clone().or_else(|| theirs.clone())
}

fn function(text: &str, names: Names<'_>) -> Result<FunctionName> {
    let filled = text.replace("{bin}", names.bin).replace("{package}", names.package);
    filled.parse().map_err(|why: String| {
        Problem::usage(format!("`{filled}` is no function's name"))
            .because(why)
            .help("name it by `--function NAME`, or by the key `function`")
    })
}

/// Two images for one function: the one that comes last would win.
pub(super) fn refuse_shared(images: &[(String, Vec<Asked>)]) -> Result<()> {
    for (at, (bin, functions)) in images.iter().enumerate() {
        for (other, earlier) in &images[..at] {
            let shared = functions.iter().find(|asked| {
                // A bare name may be that of an ARN: which account it is in is not known here.
                earlier.iter().any(|earlier| earlier.function.name() == asked.function.name())
            });
            if let Some(asked) = shared {
                let function = &asked.function;
                return Err(Problem::usage(format!("`{other}` and `{bin}` would both be function `{function}`")).help(
                    "give each its own under `[package.metadata.lambda-image.bin.NAME]`, put `{bin}` into the name, or \
                     choose one with `--bin`",
                ));
            }
        }
    }
    Ok(())
}

/// What was typed about functions has to be about some, and what about created ones about such.
pub(super) fn refuse_idle_flags(typed: &FunctionArgs, asked: &[&Asked]) -> Result<()> {
    if typed.no_function {
        return Ok(());
    }
    let first = |flags: &[(bool, &'static str)]| flags.iter().find(|(is_typed, _)| *is_typed).map(|(_, flag)| *flag);
    let of_any = [(typed.publish, "--publish"), (typed.alias.is_some(), "--alias")];
    if let (Some(flag), true) = (first(&of_any), asked.is_empty()) {
        return Err(Problem::usage(format!("`{flag}` is given, but no function"))
            .help("name one with `--function NAME`, or with the key `function`"));
    }
    let of_created = [
        (typed.role.is_some(), "--role"),
        (typed.memory.is_some(), "--memory"),
        (typed.timeout.is_some(), "--timeout"),
    ];
    if let (Some(flag), true) = (first(&of_created), asked.iter().all(|asked| asked.create.is_none())) {
        return Err(Problem::usage(format!("`{flag}` is given, but no function is to be created"))
            .because("it is for functions that a push creates, and changes none that is there")
            .help("add `--create-function`, or leave it out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::listening;
    use super::*;

    const NAMES: Names<'static> = Names { bin: "resize", package: "shop", version: None };
    const ROLE: &str = "arn:aws:iam::123456789012:role/r";

    fn settled(table: &str, flags: &FunctionArgs, repository: &str) -> Result<Vec<Asked>> {
        let table: Table = toml::from_str(table).expect("the table is right");
        let settings = FunctionSettings::of_table(&table);
        settings.settle(flags, NAMES, &Repository::of(repository), &Function::default(), &Session::silent())
    }

    fn names(asked: &[Asked]) -> Vec<&str> {
        asked.iter().map(|asked| asked.function.name()).collect()
    }

    #[test]
    fn functions_are_named_by_flags_then_tables_and_only_then_created_as_the_binary() {
        let flags = |function: &[&str]| FunctionArgs {
            function: function.iter().map(|name| (*name).into()).collect(),
            ..FunctionArgs::default()
        };
        let create = format!("create-function = true\nrole = \"{ROLE}\"");
        for (table, flags, expected) in [
            ("", flags(&[]), &[][..]),
            ("function = \"a\"", flags(&[]), &["a"]),
            ("function = [\"a\", \"{package}-{bin}\", \"a\"]", flags(&[]), &["a", "shop-resize"]),
            ("function = \"a\"", flags(&["b", "c"]), &["b", "c"]),
            ("function = \"a\"", FunctionArgs { no_function: true, ..flags(&[]) }, &[]),
            (&create, flags(&[]), &["resize"]),
            ("role = \"r\"\nalias = \"live\"", flags(&[]), &[]),
        ] {
            assert_eq!(names(&settled(table, &flags, "shop/a").expect(table)), expected, "{table}");
        }
    }

    #[test]
    fn an_alias_asks_for_a_version_and_a_version_for_nothing_more() {
        let release = |table: &str| {
            let asked = settled(&format!("function = \"a\"\n{table}"), &FunctionArgs::default(), "shop/a");
            asked.map(|mut asked| asked.remove(0).release)
        };
        assert_eq!(release("").expect("right"), Release::Code);
        assert_eq!(release("publish = true").expect("right"), Release::Version);
        assert_eq!(release("alias = \"live\"").expect("right"), Release::Alias("live".into()));
        assert_eq!(release("alias = \"7\"").expect_err("a version").message(), "`7` is no name of an alias");
    }

    #[test]
    fn a_created_function_needs_a_role_and_takes_what_another_tool_knows() {
        let flags = FunctionArgs { create_function: true, ..FunctionArgs::default() };
        let problem = settled("", &flags, "shop/a").expect_err("no role");
        assert_eq!(problem.message(), "there is no role for the function of `resize` to be created with");
        let problem = settled("role = \"r\"", &flags, "shop/a").expect_err("no ARN");
        assert_eq!(problem.message(), "`r` is not the ARN of a role");

        let theirs = Function {
            role: Some(ROLE.into()),
            memory_mb: Some(512),
            timeout_seconds: Some(30),
            env: BTreeMap::from([("A".into(), "b".into())]),
        };
        let table: Table = toml::from_str("timeout = 5").expect("the table is right");
        let (session, heard) = listening();
        let settings = FunctionSettings::of_table(&table);
        let asked = settings.settle(&flags, NAMES, &Repository::of("shop/a"), &theirs, &session).expect("right");
        let expected =
            Create { role: ROLE.into(), memory_mb: Some(512), timeout_seconds: Some(5), env: theirs.env.clone() };
        assert_eq!(asked[0].create, Some(expected));
        let note = "`iam_role`, `memory`, `env` of cargo-lambda's settings are taken for a created function";
        assert!(heard.warnings()[0].starts_with(note), "{:?}", heard.warnings());
    }

    #[test]
    fn what_no_function_could_take_is_refused() {
        let flags = FunctionArgs::default();
        let ecr = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/a";
        for (function, repository, expected) in [
            ("a b", "shop/a", "`a b` is no function's name"),
            ("a:live", "shop/a", "`a:live` is no function's name"),
            (
                "a",
                "ghcr.io/a",
                "functions take images from private repositories of Amazon ECR only, and `ghcr.io` is another registry",
            ),
            (
                "arn:aws:lambda:us-east-1:123456789012:function:a",
                ecr,
                "function `a` is in us-east-1, and takes no image from `123456789012.dkr.ecr.eu-west-1.amazonaws.com` in \
                 eu-west-1",
            ),
        ] {
            let table = format!("function = \"{function}\"");
            assert_eq!(settled(&table, &flags, repository).expect_err(function).message(), expected);
        }
        assert_eq!(names(&settled("function = \"a\"", &flags, ecr).expect("a plain name")), ["a"]);
        // Elsewhere without functions is well.
        assert!(settled("function = []", &flags, "ghcr.io/a").expect("none").is_empty());
    }

    #[test]
    fn one_function_for_two_images_is_refused() {
        let of = |bin: &str, function: &str| {
            (
                bin.to_owned(),
                settled(&format!("function = \"{function}\""), &FunctionArgs::default(), "a").expect("right"),
            )
        };
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:f";
        for function in ["f", arn] {
            let problem = refuse_shared(&[of("a", "f"), of("b", function)]).expect_err("shared");
            assert_eq!(problem.message(), "`a` and `b` would both be function `f`");
        }
        refuse_shared(&[of("a", "f"), of("b", "g")]).expect("each its own");
    }

    #[test]
    fn flags_about_functions_want_one() {
        let alias = FunctionArgs { alias: Some("live".into()), ..FunctionArgs::default() };
        let role = FunctionArgs { role: Some(ROLE.into()), ..FunctionArgs::default() };
        let memory = FunctionArgs { memory: Some(512), ..FunctionArgs::default() };
        let timeout = FunctionArgs { timeout: Some(9), ..FunctionArgs::default() };
        let create = format!("function = \"f\"\ncreate-function = true\nrole = \"{ROLE}\"");
        let (there, created) = ["function = \"f\"", &create]
            .map(|table| settled(table, &FunctionArgs::default(), "a").expect("right"))
            .into();
        let (there, created) = ([&there[0]], [&created[0]]);
        for (flags, asked, expected) in [
            (&alias, &[][..], Some("`--alias` is given, but no function")),
            (&alias, &there, None),
            (&FunctionArgs::default(), &[], None),
            (&role, &[], Some("`--role` is given, but no function is to be created")),
            (&memory, &there, Some("`--memory` is given, but no function is to be created")),
            (&timeout, &there, Some("`--timeout` is given, but no function is to be created")),
            (&role, &created, None),
            (&FunctionArgs { no_function: true, ..alias.clone() }, &[], None),
        ] {
            let refused = refuse_idle_flags(flags, asked).err();
            assert_eq!(refused.as_ref().map(Problem::message), expected);
        }
    }
}
