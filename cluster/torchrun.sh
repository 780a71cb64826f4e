#!/bin/bash
# One run by torch's own launcher: the same line on every node, within a few minutes: bash cluster/torchrun.sh
# Edit the three lines: the nodes meet at the address of one of them. batch_size is per process: 128 is that of the paper.
# Where a process dies, all begin again, from the last checkpoint.
nodes=2 processes=4                                              # <- edit
meet=node0:29500                                                 # <- edit
run=(--config pixel_mnist/exprnn.yaml --data.init_args.batch_size $((128 / nodes / processes)) --run_dir runs/mnist)  # <- edit

export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # whoever begins again meets in a store without what the dead left
exec torchrun --nnodes "$nodes" --nproc-per-node "$processes" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$meet" --rdzv-id "lit_rnn-${run[*]: -1}" \
    -m lit_rnn fit "${run[@]}" --config cluster/multi_node.yaml --resume auto \
    --trainer.devices "$processes" --trainer.num_nodes "$nodes"
