# What the rules share: where things are, and what a job takes of a machine.


def modules_of(script):
    """Modules of the library that a script imports: as inputs, an edit of one reruns the rule and a touch does not."""
    return list(map(os.path.relpath, imports.modules(f"{workflow.basedir}/scripts/{script}.py")))


def if_law(targets):
    """Targets of the study only where its grid can hold a law; a smaller one ends without laws."""
    return targets if study.has_law(config) else []


def of_repository(*paths):
    """Files of the repository, from whichever folder Snakemake runs in."""
    return [os.path.relpath(f"{workflow.basedir}/{path}") for path in paths]


def threads_of_a_job():
    """Eight jobs on two processors must not thrash: a job takes as many of the cores given as make one processor."""
    cores = workflow.resource_settings.cores  # none are given on a cluster, where the profile sets threads
    return -(-cores // os.cpu_count()) if cores else 1


def files_of_folder(wildcards):
    """The files of a local folder are inputs, so that a change of them is seen; other sources have none."""
    source = RAW[wildcards.source]["source"]
    if "folder" not in source:
        return []
    return sorted(
        map(
            str,
            filter(Path.is_file, Path(source["folder"]).glob(source.get("pattern", "*"))),
        )
    )


def tokens_of(modality, model):
    tokenizer = study.by_name(config, "models", model)["tokenizer"]
    return f"data/tokens/{study.dataset(config, modality)}/{tokenizer}.npz"


def tokens_of_cell(wildcards):
    return tokens_of(wildcards.modality, wildcards.model)


def tokenizer_of_cell(wildcards):
    return study.tokenizer(config, study.by_name(config, "models", wildcards.model)["tokenizer"])


def weights_of_cell(wildcards):
    if "repo" in study.by_name(config, "models", wildcards.model):  # not there yet; source.json holds their hash
        return [f"{study.checkpoint(config, wildcards.model, wildcards.step)}/source.json"]
    folder = Path(study.checkpoint(config, wildcards.model, wildcards.step))
    return sorted(map(str, folder.glob("*.safetensors"))) or [str(folder / "model.safetensors")]


def commit_of_checkpoint(wildcards):
    """The commit that the configuration names for a checkpoint on the Hub; None leaves it to the revision."""
    commits = study.by_name(config, "models", wildcards.model).get("commits", {})
    return commits.get(study.revision(config, wildcards.model, wildcards.step))


def any_of(names):
    """A wildcard's pattern: one of `names`, and nothing when there are none."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def parameters_of_cell(wildcards, input):
    return resources.parameters(study.by_name(config, "models", wildcards.model).get("nominal"), input.weights)


def memory_of_cell(wildcards, input, attempt):
    size = parameters_of_cell(wildcards, input)
    return resources.memory_mb(size, config["precision"], config["device"], attempt, config["max_mem_mb"])


def minutes_of_cell(wildcards, input, attempt):
    size = parameters_of_cell(wildcards, input)
    most = config["max_minutes"]
    bytes_of_chunk = config["chunk_bytes"]  # a token stands for a byte or more
    tokens = config["chunks"] * bytes_of_chunk
    return resources.minutes(size, config["precision"], config["device"], tokens, bytes_of_chunk, attempt, most)
