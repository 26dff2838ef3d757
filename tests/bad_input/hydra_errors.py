"""Settings that Hydra refuses: sections that are no components, unknown options, and its own settings."""

from tests.bad_input import PASSWORD, Case

URL = f"http://user:{PASSWORD}@host"

CASES = [
    # a choice that is none
    Case("run.py loss=null", "loss=null: choose loss=brier, "),
    Case("run.py tracking=null", "tracking=null: choose tracking=mlflow or none"),
    Case("run.py model=5", "model=5: choose model=gpt2, pretrained or tiny"),
    Case("run.py optimizer=[]", "optimizer=[]: choose optimizer=adafactor, adamw, muon or sgd"),
    Case("run.py loss=[focal,brier]", "loss=[focal,brier]: choose loss="),
    Case("run.py data=true", "data=true: choose data=stories, text or tinystories"),
    Case("run.py hydra/launcher=null", "hydra/launcher=null"),
    # a section that is gone, or is no component
    Case("run.py '~loss'", "loss is missing: set loss=VALUE"),
    Case("run.py '~data'", "data is missing: set data=VALUE"),
    Case("run.py '~seed'", "seed is missing: set seed=VALUE"),
    Case("run.py '~train.max_steps'", "train.max_steps"),
    Case("run.py '~loss._target_'", "loss._target_=null is no component: choose loss="),
    Case("run.py data.source=null", "data.source=null is no component: choose data=stories, text or tinystories"),
    Case("run.py data.tokenizer=5", "data.tokenizer=5 is no component"),
    Case("run.py loss._target_=5", "loss._target_=5 is no component"),
    Case("run.py train=null", "train=null"),
    Case("run.py samples=5", "samples=5"),
    Case("run.py seed=???", "seed is missing: set seed=VALUE"),
    Case("run.py loss=focal loss.gamma=???", "loss.gamma is missing: set loss.gamma=VALUE"),
    # a target that is no component
    Case("run.py loss._target_=os.system", "Hydra does not call os.system"),
    Case("run.py loss._target_=os.system +loss.command=id", "loss"),
    Case("run.py data.source._target_=nanosq.data.stories.storys", "did you mean 'stories'?"),
    # names that do not exist
    Case("run.py optimizer=adam", "did you mean 'adamw'?"),
    Case("run.py schedule=cosin", "did you mean 'cosine'?"),
    Case("run.py experiment=ten_minuts", "did you mean 'ten_minutes'?"),
    Case("run.py hydra/launcher=jobli", "did you mean 'joblib'?"),
    Case("run.py los=squentropy", "Did you mean: 'loss'?"),
    Case("run.py loss=squentropy loss.wieght=1", "Did you mean: 'weight'?"),
    Case("run.py +data.windw=here", "unknown setting 'data.windw'; did you mean 'data.window'?"),
    Case("run.py +train.max_stps=5", "unknown setting 'train.max_stps'; did you mean 'train.max_steps'?"),
    Case("run.py --config-name nothing", "Cannot find primary config 'nothing'"),
    Case("run.py --config-dir nowhere", "nowhere"),
    Case("run.py --config-dir text.txt", "text.txt"),
    Case("run.py --config-path nowhere", "nowhere"),
    # references
    Case("run.py 'seed=${nothing}'", "seed: Interpolation key 'nothing' not found"),
    Case("run.py 'checkpoint_dir=${oc.env:NOTHING}'", "checkpoint_dir: KeyError"),
    Case("run.py 'seed=${nothing:3}'", "seed: Unsupported interpolation type nothing"),
    Case("run.py 'samples.length=${samples.length}'", "samples.length"),
    # words that are no overrides
    Case("run.py seed", "seed: missing EQUAL"),
    Case("run.py =5", "=5 has no key"),
    Case("run.py 'loss=[a'", "loss=[a: no viable alternative"),
    Case('run.py "loss=a\'b"', "quote a value with special characters"),
    Case(f"run.py '+url={URL}\"'", "quote a value with special characters"),
    Case("run.py 'seed=nothing(3)'", "Unknown function 'nothing'"),
    Case("run.py 'seed=int(abc)'", "invalid literal for int()"),
    Case("run.py seed=1,2", "seed=1,2"),
    # Hydra's own settings
    Case("run.py hydra.run.dir=text.txt", "hydra.run.dir: text.txt cannot be created (File exists)"),
    Case("run.py hydra.run.dir=/proc/x", "hydra.run.dir: /proc/x cannot be created"),
    Case("run.py hydra.run.dir=null", "hydra.run.dir"),
    Case("run.py hydra.mode=NOTHING", "hydra.mode"),
    Case("run.py hydra.nothing=5", "hydra.nothing"),
    Case("run.py hydra.job.chdir=maybe", "hydra.job.chdir"),
    Case("run.py hydra.verbose=5", "Hydra cannot start with these settings: AssertionError"),
    Case("run.py +hydra.callbacks.a._target_=os.system", "os.system"),
    Case("run.py hydra.job=null", "hydra.job"),
    Case("run.py hydra.job_logging=5", "hydra"),
    Case("run.py hydra.searchpath=5", "hydra.searchpath"),
]
