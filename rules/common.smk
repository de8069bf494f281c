# What the rules share: where things are, and how many cores a job takes.


def modules(*names):
    """Modules of the library that a rule's numbers depend on: as inputs, an edit reruns it and a touch does not."""
    return [os.path.relpath(f"{workflow.basedir}/workflow/bitlaw/{name}.py") for name in names]


def of_repository(*paths):
    """Files of the repository, from whichever folder Snakemake runs in."""
    return [os.path.relpath(f"{workflow.basedir}/{path}") for path in paths]


def threads_of_a_job():
    """Eight jobs on two processors must not thrash: a job takes as many of the cores given as make one processor."""
    return -(-workflow.cores // os.cpu_count()) if workflow.cores else 1


def files_of_folder(wildcards):
    """The files of a local folder are inputs, so that a change of them is seen; other sources have none."""
    source = config["sources"][wildcards.source]
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
    return config["tokenizers"][study.by_name(config, "models", wildcards.model)["tokenizer"]]


def weights_of_cell(wildcards):
    folder = Path(study.checkpoint(config, wildcards.model, wildcards.step))
    return sorted(map(str, folder.glob("*.safetensors"))) or [str(folder / "model.safetensors")]
