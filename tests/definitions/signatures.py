"""The interface of every pattern, as the catalogue writes it: name(parameters) [tensors]."""

SIGNATURES = """
full()
causal()
sliding_window(window=1024)
local(radius=512)
dilated_window(window=512, dilation=2)
streaming(window=1024, sinks=4)
longformer(radius=256) [is_global[b,n]: bool]
strided_blocks(block=64, near=4, stride=16)
sharded(block=64, near=16, period=16)
shifted_groups(group=2048)
prefix_lm() [prefix[b]: int]
document() [ids[b,n]: int]
region() [ids[b,n]: int]
diagonal_masked()
visual_isolated() [is_visual[b,n]: bool]
short_long_heads(window=256, short=4)
temporal_latent(stride=2)
local_block(block=64)
neighborhood_1d(length, window=7, stride=1, dilation=1, causal=false)
neighborhood_2d(height, width, window_y=7, window_x=7, stride_y=1, stride_x=1, dilation_y=1, dilation_x=1,
    causal_y=false, causal_x=false)
neighborhood_3d(frames, height, width, window_t=5, window_y=7, window_x=7, stride_t=1, stride_y=1,
    stride_x=1, dilation_t=1, dilation_y=1, dilation_x=1, causal_t=false, causal_y=false, causal_x=false)
inward_window(frames, height, width, radius_y=3, radius_x=3)
halo(height, width, block=8, halo=3)
space(frames, tokens)
time(frames, tokens)
radial(frames, tokens, sink=true)
spatial_temporal_heads(frames, tokens, near_frames=1, near_tokens=64) [is_temporal[h]: bool]
unidirectional_blocks(height, width, block=8)
swin(height, width, window=8, shift=4) [bias[h,(2*window-1)**2]]
alibi() [slopes[h]]
music(reach=512) [rel[h,reach,d]]
t5(buckets=32, max_distance=128) [table[h,buckets]]
distance_bias() [x[b,n,3], alpha[h]]
low_rank_bias(rank=8) [left[b,h,q,rank], right[b,h,k,rank]]
pair_bias() [bias[b,h,q,k]]
softcap(cap=50.0)
selective() [tau[b,h,q], alpha[h]]
cosine(height, width, window=8) [logit_scale[h], bias[h,(2*window-1)**2]]
gaussian_mixture(height, width, components=2) [alpha[h,components], sigma[h,components]]
gated_positional(height, width) [direction[h,3], gate[h]]
universal_rpe(reach=512) [bias[h,2*reach-1], factor[h,2*reach-1]]
variate(channels, near=10) [q_content[h,d], q_time[h,d], q_channel[h,d], r_time[g,128,d],
    r_channel[g,channels,d]]
additive() [w[h,d]]
sigmoid() [bias[h]]
relu()
softmax_one()
sink_softmax() [sink[h]]
softplus_reweighted(power=3, offset=1.0)
sparsemax()
entmax(alpha=1.5)
sinkhorn(iterations=3)
affine_scaled() [alpha[b,h,q], beta[b,h,q]]
top_k(keep=32)
tanh_static() [alpha[h], m[h,q,k]]
taylor()
talking_heads() [pre[h,h], post[h,h]]
composed_heads(rank=2) [pre_q1[b,q,rank,h], pre_q2[b,q,rank,h], pre_k1[b,k,rank,h], pre_k2[b,k,rank,h],
    pre_qd[b,q,h], pre_kd[b,k,h], post_q1[b,q,rank,h], post_q2[b,q,rank,h], post_k1[b,k,rank,h],
    post_k2[b,k,rank,h], post_qd[b,q,h], post_kd[b,k,h]]
mixture_of_heads() [gate[b,q,h]]
key_driven_groups() [kv_head[h]: int]
block_topk(block=64, keep=8)
tile_topk(tile=64, keep=8) [gate[b,h,q]]
native_sparse(block=64, keep=4, window=256) [gate[b,h,q,3]]
antidiagonal(stride=8, block=64, threshold=0.9)
region_routing(height, width, region=8, keep=4)
learned_gate(block=64, keep=8) [gate[b,h,q/block,k/block]]
page_topk(page=16, keep=8, sinks=4, near=64)
dynamic_mask(keep=64) [delta[b,g,k]]
expert_choice(keep=64) [router[b,h,n]]
routing(clusters=8, keep=64) [centroids[h,clusters,d]]
hash_buckets() [bucket[b,h,n]: int]
dropped() [keep_q[b,h,q]: bool, keep_k[b,h,k]: bool]
agent(agents=49) [a[b,h,agents,d], bias1[h,agents,k], bias2[h,q,agents]]
pooled_keys(stride=4)
combiner(span=64)
core_context(group=16, window=64)
compensated(sinks=4, window=256) [retrieval[h]: bool]
pyramid(block=64) [level[b,h,q/block,k/block]: int]
multiresolution(block=32, keep=16)
linear()
retention() [decay[h]]
based()
gated_linear() [decay[b,h,n,d]]
delta() [beta[b,h,n]]
error_free_delta() [beta[b,h,n]]
injective()
magnitude_aware()
flow()
efficient()
chunk_recurrent(chunk=16) [gate[b,g,n,d]]
extra_tokens(extra=16) [ek[b,g,extra,d], ev[b,g,extra,d]]
memory_bank(temperature=0.05)
windowed_query(reach=8, alpha=0.5)
"""
