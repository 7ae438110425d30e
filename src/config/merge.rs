//! Flags over those that the environment asks for, one struct of flags at a time.

use crate::cli::{
    BuildArgs, CheckArgs, CompileArgs, DestinationArgs, FunctionArgs, ImageArgs, ManifestArgs, SelectionArgs, TalkArgs,
};

/// `typed` over `asked`. Where flags exclude each other, one that was typed also removes what the environment says of
/// the others. The patterns are exhaustive, so that no flag is forgotten.
pub(super) fn merge(typed: BuildArgs, asked: BuildArgs) -> BuildArgs {
    let BuildArgs { selection, compile, image, check, manifest, talk } = asked;
    BuildArgs {
        selection: merge_selection(typed.selection, selection),
        compile: merge_compile(typed.compile, compile),
        image: merge_image(typed.image, image),
        check: merge_check(typed.check, check),
        manifest: merge_manifest(typed.manifest, manifest),
        talk: merge_talk(typed.talk, talk),
    }
}

fn merge_selection(typed: SelectionArgs, asked: SelectionArgs) -> SelectionArgs {
    let SelectionArgs { package, workspace, bin, binary_path, no_binary, name } = asked;
    let says_source = typed.no_binary || typed.binary_path.is_some();
    SelectionArgs {
        // `--workspace` outranks `-p` in cargo, so one that was typed must not be outranked by a variable.
        workspace: typed.workspace || (workspace && typed.package.is_empty()),
        package: first(typed.package, package),
        bin: if typed.no_binary { Vec::new() } else { first(typed.bin, bin) },
        binary_path: typed.binary_path.or(if says_source { None } else { binary_path }),
        no_binary: typed.no_binary || (no_binary && !says_source),
        name: typed.name.or(name),
    }
}

fn merge_compile(typed: CompileArgs, asked: CompileArgs) -> CompileArgs {
    let CompileArgs {
        features,
        all_features,
        no_default_features,
        release,
        dev,
        profile,
        arm64,
        x86_64,
        target,
        target_dir,
        cargo_build,
        jobs,
    } = asked;
    let says_profile = typed.release || typed.dev || typed.profile.is_some();
    let says_target = typed.arm64 || typed.x86_64 || typed.target.is_some();
    CompileArgs {
        features: first(typed.features, features),
        all_features: typed.all_features || all_features,
        no_default_features: typed.no_default_features || no_default_features,
        release: typed.release || (release && !says_profile),
        dev: typed.dev || (dev && !says_profile),
        profile: typed.profile.or(if says_profile { None } else { profile }),
        arm64: typed.arm64 || (arm64 && !says_target),
        x86_64: typed.x86_64 || (x86_64 && !says_target),
        target: typed.target.or(if says_target { None } else { target }),
        target_dir: typed.target_dir.or(target_dir),
        cargo_build: typed.cargo_build.or(cargo_build),
        jobs: typed.jobs.or(jobs),
    }
}

fn merge_image(typed: ImageArgs, asked: ImageArgs) -> ImageArgs {
    let ImageArgs {
        base,
        asset,
        no_assets,
        handler,
        mut env,
        entrypoint,
        working_directory,
        compression_level,
        format,
        allow_secrets,
        assets_from_lock,
        output,
        no_cache,
    } = asked;
    // The last of one key counts.
    env.extend(typed.env);
    ImageArgs {
        base: typed.base.or(base),
        asset: first(typed.asset, asset),
        no_assets: typed.no_assets || no_assets,
        handler: typed.handler.or(handler),
        env,
        entrypoint: typed.entrypoint.or(entrypoint),
        working_directory: typed.working_directory.or(working_directory),
        compression_level: typed.compression_level.or(compression_level),
        format: typed.format.or(format),
        allow_secrets: first(typed.allow_secrets, allow_secrets),
        assets_from_lock: typed.assets_from_lock || assets_from_lock,
        output: typed.output.or(output),
        no_cache: typed.no_cache || no_cache,
    }
}

fn merge_check(typed: CheckArgs, asked: CheckArgs) -> CheckArgs {
    let CheckArgs { deny, allow, max_size, no_verify } = asked;
    CheckArgs {
        deny: first(typed.deny, deny),
        allow: first(typed.allow, allow),
        max_size: typed.max_size.or(max_size),
        no_verify: typed.no_verify || no_verify,
    }
}

pub(super) fn merge_manifest(typed: ManifestArgs, asked: ManifestArgs) -> ManifestArgs {
    let ManifestArgs { manifest_path, locked, offline, frozen, config } = asked;
    ManifestArgs {
        manifest_path: typed.manifest_path.or(manifest_path),
        locked: typed.locked || locked,
        offline: typed.offline || offline,
        frozen: typed.frozen || frozen,
        config: first(typed.config, config),
    }
}

pub(super) fn merge_talk(typed: TalkArgs, asked: TalkArgs) -> TalkArgs {
    let TalkArgs { verbose, quiet, color, message_format, output_env } = asked;
    let says_loudness = typed.quiet || typed.verbose > 0;
    TalkArgs {
        verbose: if says_loudness { typed.verbose } else { verbose },
        quiet: if says_loudness { typed.quiet } else { quiet },
        color: typed.color.or(color),
        message_format: typed.message_format.or(message_format),
        output_env: typed.output_env.or(output_env),
    }
}

pub(super) fn merge_destination(typed: DestinationArgs, asked: DestinationArgs) -> DestinationArgs {
    let DestinationArgs {
        repository,
        create_repository,
        tag,
        no_digest_tag,
        image,
        dry_run,
        insecure,
        region,
        aws_profile,
        endpoint_url,
    } = asked;
    DestinationArgs {
        repository: typed.repository.or(repository),
        create_repository: typed.create_repository || create_repository,
        tag: first(typed.tag, tag),
        no_digest_tag: typed.no_digest_tag || no_digest_tag,
        image: typed.image.or(image),
        dry_run: typed.dry_run || dry_run,
        insecure: typed.insecure || insecure,
        region: typed.region.or(region),
        aws_profile: typed.aws_profile.or(aws_profile),
        endpoint_url: typed.endpoint_url.or(endpoint_url),
    }
}

pub(super) fn merge_functions(typed: FunctionArgs, asked: FunctionArgs) -> FunctionArgs {
    let FunctionArgs { function, no_function, create_function, role, memory, timeout, publish, alias, wait } = asked;
    let names_some = !typed.function.is_empty() || typed.create_function || typed.publish || typed.alias.is_some();
    let unless_none = |set: bool| set && !typed.no_function;
    FunctionArgs {
        create_function: typed.create_function || unless_none(create_function),
        publish: typed.publish || unless_none(publish),
        alias: typed.alias.or(if typed.no_function { None } else { alias }),
        function: if typed.no_function { Vec::new() } else { first(typed.function, function) },
        no_function: typed.no_function || (no_function && !names_some),
        role: typed.role.or(role),
        memory: typed.memory.or(memory),
        timeout: typed.timeout.or(timeout),
        wait: typed.wait.or(wait),
    }
}

/// Lists replace each other.
fn first<T>(typed: Vec<T>, asked: Vec<T>) -> Vec<T> {
    if typed.is_empty() { asked } else { typed }
}
