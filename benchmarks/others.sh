#!/usr/bin/env bash
# Makes environments for two other simulators, which `python -m benchmarks.engine --others FOLDER`
# measures beside ours. Run it in our environment: torch and what else is there already is shared
# with it (theirs comes first), so that each needs 30 to 140 MB, and computes by the same torch.
set -euo pipefail
folder=${1:?"usage: benchmarks/others.sh FOLDER"}
ours=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
torch=$(python -c 'import torch; print(torch.__version__.split("+")[0])')
for package in pfl==0.6.0 fluke-fl==0.8.1; do
    name=${package%%[=-]*}
    python -m venv "$folder/$name"
    echo "$ours" > "$(ls -d "$folder/$name"/lib/python*/site-packages)/ours.pth"
    "$folder/$name/bin/python" -m pip install --quiet "$package" "torch==$torch"
done
