"""minigpt2: GPT-2 and its instruction tuning, every gradient derived and written by hand.

Symbols, the same in every chapter
    N  rows (tokens) in a batch        C  features of a row (n_embd)
    H  attention heads (n_head)        D  features of a head, D = C / H
    F  hidden features, F = 4 C        V  entries of the vocabulary
    T  positions, longest sequence     L  blocks (n_layer)
    M  supervised triples of a batch   P  parameters
    B  rows of one block or chunk      K  output features, or keys of one block
    R  rows that the loss reads        G  heads that one core computes

    dx, and dL/dx in the code's words, stand for ∂ℒ/∂x, where ℒ is the loss, the one
    number that training lowers.

Contents, in reading order; a module imports only modules above it.  What has a number is a chapter
of the book, the rest (·) is listed where it is first needed.

Part I: Arrays
     1  backend                        Backend
     ·  blas                           BLAS
     ·  parallel                       Parallel work
     2  ops/linear                     Linear map
     3  ops/embedding                  Embedding
     4  ops/layer_norm                 Layer normalisation
     5  ops/gelu                       GELU
     6  ops/softmax                    Softmax
     7  ops/dropout                    Dropout
     ·  ops/attention_tiles            Tiles of attention
     8  ops/attention                  Attention over the token forest
     9  ops/cross_entropy              Cross-entropy with the projection inside
    10  ops/adamw                      AdamW
    11  ops/lora                       LoRA

Part II: The network
     ·  errors                         Errors
     ·  checked                        Checked values
     ·  wording                        Wording
     ·  outputs                        Outputs
     ·  durable                        Durable folders
     ·  direct_file                    Direct files
     ·  checksum                       Checksum
     ·  reading                        Reading
     ·  memory                         Memory
     ·  shipped                        Shipped files
    12  model/config                   Configuration
    13  model/parameters               Parameters
    14  model/initialisation           Initialisation
     ·  model/batch                    Batch
     ·  model/layer                    Layer
     ·  model/adapters                 Adapters
     ·  model/gradients                Gradients
     ·  model/recompute                Recomputation
    15  model/block                    Block
    16  model/gpt2                     GPT-2
     ·  model/heads                    Heads
    17  model/induction                Induction heads
     ·  tensors                        Stored tensors
     ·  tensor_writer                  Writing tensors
     ·  model_folders                  Model folders
     ·  weights                        Weights
     ·  reward_weights                 Reward models' weights
     ·  adapter_config                 Adapter config
     ·  adapter_weights                Adapters' files

Part III: The loss and the step
    18  training/precision             Precision
    19  training/schedule              Schedule
    20  training/losses                Losses
     ·  training/world                 World
     ·  training/objective             Objective
     ·  training/state                 State
     ·  training/config                Training config
    21  training/micro_batches         Micro-batches
     ·  training/step                  Step
     ·  training/ahead                 Ahead

Part IV: Text
     ·  yaml_files                     YAML files
     ·  data/records                   Records
     ·  data/files                     Files
     ·  data/conversations             Conversations
     ·  data/fields                    Fields
     ·  data/formats                   Formats
     ·  data/loading                   Loading
    22  data/template                  Template
     ·  data/template_files            Template files
     ·  data/vocabulary                Vocabulary
     ·  data/added_tokens              Added tokens
    23  data/tokenizer                 Tokenizer
    24  data/examples                  Examples
    25  data/truncation                Truncation
    26  data/loss_weights              Loss weights
    27  data/forest                    Token forest
     ·  data/batches                   Batches
    28  data/statistics                Statistics
     ·  data/documents                 Documents
     ·  data/train_tokenizer           Training a tokenizer
     ·  data/almanac/tables            Tables
     ·  data/almanac/wordings          Wordings
     ·  data/almanac/chance            Chance
     ·  data/almanac/arithmetic        Arithmetic
     ·  data/almanac/tell_facts        Telling facts
     ·  data/almanac/tell_numbers      Telling numbers
     ·  data/almanac/tell_words        Telling words
     ·  data/almanac/tell              Telling
     ·  data/almanac/ask               Asking
     ·  data/almanac/padding           Padding
     ·  data/almanac/preferences       Preferences

Part V: Answering
    29  inference/sampling             Sampling
    30  inference/kv_cache             Key/value cache
    31  inference/generate             Generation
     ·  inference/model                Model
     ·  inference/answers              Answers
     ·  inference/conversation         Conversation

Part VI: Tuning
    32  training/evaluation            Evaluation
    33  training/gradient_imbalance    Imbalance
     ·  training/checkpoint            Checkpoint
     ·  training/checkpoint_reader     Checkpoint reader
     ·  training/checkpoint_writer     Checkpoint writer
     ·  training/fingerprint           Fingerprint
     ·  training/run                   Run

Part VII: Alignment
    34  alignment/pairs                Preference pairs
    35  alignment/log_probs            Log-probabilities
     ·  alignment/pair_batches         Batches of pairs
    36  alignment/reward_model         Reward model
    37  alignment/kl_objective         KL-regularised objective
    38  alignment/dpo                  DPO
     ·  alignment/completions          Completions
    39  alignment/rollout              Rollouts
    40  alignment/policy_gradient      Policy gradient
    41  alignment/advantages           Advantages
    42  alignment/value                Value function
     ·  alignment/value_function       Value functions
     ·  alignment/on_policy            On policy
    43  alignment/ppo                  PPO
     ·  alignment/ppo_phases           Phases of PPO
    44  alignment/verifiable_rewards   Verifiable rewards
    45  alignment/grpo                 GRPO
     ·  alignment/exam                 Exam

Part VIII: On a GPU
     ·  device/includes                Includes
     ·  device/signatures              Signatures
     ·  device/attention_blocks       Attention's blocks
     ·  device/kernel_specs            Kernel specs
     ·  device/compile                 Compile
     ·  device/sanitizer               Sanitizer
    46  device/emulator                Emulator
     ·  device/fake_copies             Fake copies
     ·  device/fake_stream             Fake stream
     ·  device/fake_pool               Fake pool
     ·  device/fake_array              Fake array
     ·  device/fake_cupy               Fake CuPy
     ·  device/checks                  Checks
    47  device/launch                  Launch
     ·  device/cublaslt                cuBLASLt
     ·  device/products                Products
     ·  device/side_stream             Side stream
     ·  device/graph                   Graphs
     ·  device/indices                 Indices
     ·  device/fused_columns           Fused column sums
     ·  device/fused_cross_entropy     Fused cross-entropy
     ·  device/fused_gelu              Fused GELU
     ·  device/fused_linear            Fused linear map
     ·  device/fused_lora              Fused LoRA
     ·  device/fused_rows              Fused rows
     ·  device/fused_loss              Fused loss
     ·  device/fused_attention         Fused attention
     ·  device/decoding                Decoding on a device
     ·  device/fused_layer_norm        Fused layer normalisation
    48  device/fused                   Fused ops
     ·  device/filled_batch            Filled batches
     ·  device/captured                Captured step
     ·  device/devices                 Devices

Appendix: planning, reports, commands
    49  planning/memory_and_flops      Memory and operations
    50  planning/microbenchmark        Microbenchmark
    51  planning/device_memory         Memory on a GPU
     ·  planning/available             Available memory
     ·  planning/batch_profile         Batch profile
    52  planning/alignment_memory      Memory of alignment
    53  planning/alignment_operations  Operations of alignment
     ·  planning/alignment_profile     Batch profile of alignment
     ·  planning/room                  Room
     ·  planning/disk_space            Disk space
     ·  terminal                       Terminal
     ·  signals                        Signals
     ·  reports/screen                 Screen
     ·  reports/progress               Progress
     ·  download                       Download
     ·  reports/stream                 Stream
     ·  reports/html                   HTML pages
     ·  reports/tokens                 Tokens
     ·  reports/metrics                Metrics
     ·  reports/plots                  Plots
     ·  reports/imbalance_plot         Plot of imbalance
     ·  reports/tensorboard            TensorBoard
     ·  reports/run_log                Run log
     ·  reports/before_after           Before and after
     ·  reports/run_page               Page of a run
     ·  reports/align_page             Page of align
     ·  commands/decoding              Decoding
     ·  commands/dataset               Data set
     ·  commands/tests                 Tests
     ·  commands/run_settings          Settings of every run
     ·  commands/run_paths             Paths of a run
     ·  commands/resume                Resume
     ·  commands/session               Session
     ·  commands/tuning_run            Run that tunes
     ·  commands/lora_settings         Settings of LoRA
     ·  commands/train_settings        Settings of train
     ·  commands/setup                 Setup
     ·  commands/train                 Train
     ·  commands/pair_settings         Settings of runs on pairs
     ·  commands/pair_run              Run on pairs
     ·  commands/pair_steps            Steps on pairs
     ·  commands/reward                Reward
     ·  commands/dpo                   DPO
     ·  commands/plan_settings         Settings of plan
     ·  commands/plan_times            Times of plan
     ·  commands/plan                  Plan
     ·  commands/evaluate              Evaluate
     ·  commands/show                  Show
     ·  commands/stats                 Stats
     ·  commands/imbalance             Imbalance
     ·  commands/answer                Answer
     ·  commands/chat                  Chat
     ·  commands/generate              Generate
     ·  commands/download              Download
     ·  commands/policy_settings       Settings of runs on policy
     ·  commands/rewards               Rewards
     ·  commands/policy_run            Run on policy
     ·  commands/policy_steps          Steps on policy
     ·  commands/ppo                   PPO
     ·  commands/grpo                  GRPO
     ·  commands/almanac               Almanac
     ·  commands/pretrain              Pretrain
     ·  commands/align_stages          Stages of align
     ·  commands/align_exams           Exams of align
     ·  commands/align_results         Results of align
     ·  commands/align                 Align
     ·  help                           Help
     ·  arguments                      Arguments
     ·  settings                       Settings
     ·  cli                            Command line
     ·  api                            API
     ·  api_commands                   Commands from Python
"""

import os
from importlib import import_module
from typing import Any

# OpenBLAS looks at this once, when NumPy loads it.  Its threads wait so many clock cycles for the
# next product before they sleep, as a power of two: 0.1 ms here, and not the usual 20 ms, in which
# they would keep cores from the threads that do the work between two products.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "18")

__version__ = "0.1.0"

OF_API = ("GPT2", "UserError")
OF_API_COMMANDS = ("dpo", "evaluate", "grpo", "ppo", "reward", "train")
__all__ = [*OF_API, *OF_API_COMMANDS]


def __getattr__(name: str) -> Any:
    """Load the API when one of its names is first used: `import minigpt2` stays quick."""
    if name in OF_API:
        return getattr(import_module(".api", __name__), name)
    if name in OF_API_COMMANDS:
        return getattr(import_module(".api_commands", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *OF_API, *OF_API_COMMANDS])
