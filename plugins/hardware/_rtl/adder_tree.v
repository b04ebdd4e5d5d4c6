// The sum of N signed numbers, registered after each of its ceil(log2 N) levels; N = 1 is a wire.
// Every level is one bit wider than the one below: no sum can overflow.
module adder_tree #(
    parameter N = 16,
    parameter WIDTH = 32,
    parameter SUM_BITS = WIDTH + $clog2(N)
) (
    input wire clk,
    input wire [N*WIDTH-1:0] terms,
    output wire signed [SUM_BITS-1:0] sum
);
  localparam LEVELS = $clog2(N);

  genvar level, node;
  generate
    for (level = 0; level <= LEVELS; level = level + 1) begin : stage
      localparam BITS = WIDTH + level;
      localparam NODES = (N + (1 << level) - 1) >> level;
      wire [NODES*BITS-1:0] value;

      if (level == 0) begin : leaves
        assign value = terms;
      end else begin : inner
        localparam BELOW = (N + (1 << (level - 1)) - 1) >> (level - 1);
        for (node = 0; node < NODES; node = node + 1) begin : adder
          wire signed [BITS-2:0] left = stage[level-1].value[2*node*(BITS-1)+:BITS-1];
          reg signed [BITS-1:0] total;
          assign value[node*BITS+:BITS] = total;
          // The last node of an odd level has no right child: it only waits.
          if (2 * node + 1 < BELOW) begin : pair
            wire signed [BITS-2:0] right = stage[level-1].value[(2*node+1)*(BITS-1)+:BITS-1];
            always @(posedge clk) total <= left + right;
          end else begin : single
            always @(posedge clk) total <= {left[BITS-2], left};
          end
        end
      end
    end
  endgenerate

  assign sum = stage[LEVELS].value;

  generate
    if (N == 1) begin : wired
      wire unused = clk;
    end
  endgenerate
endmodule
