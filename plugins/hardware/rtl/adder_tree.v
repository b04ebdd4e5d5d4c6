// The sum of N signed numbers, registered after each of its ceil(log2 N) levels; N = 1 is a wire.
module adder_tree #(
    parameter N = 16,
    parameter IN = 32,
    parameter OUT = 48
) (
    input wire clk,
    input wire [N*IN-1:0] terms,
    output wire signed [OUT-1:0] sum
);
  localparam LEVELS = $clog2(N);

  genvar level, node;
  generate
    for (level = 0; level <= LEVELS; level = level + 1) begin : stage
      localparam NODES = (N + (1 << level) - 1) >> level;
      localparam BELOW = (N + (1 << level) / 2 - 1) >> (level == 0 ? 0 : level - 1);
      wire [NODES*OUT-1:0] value;

      for (node = 0; node < NODES; node = node + 1) begin : adder
        if (level == 0) begin : leaf
          wire signed [IN-1:0] term = terms[node*IN+:IN];
          assign value[node*OUT+:OUT] = {{(OUT - IN) {term[IN-1]}}, term};
        end else begin : inner
          reg [OUT-1:0] total;
          // The last node of an odd level has no right child: it only waits.
          if (2 * node + 1 < BELOW) begin : pair
            always @(posedge clk)
              total <= stage[level-1].value[2*node*OUT+:OUT] + stage[level-1].value[(2*node+1)*OUT+:OUT];
          end else begin : single
            always @(posedge clk) total <= stage[level-1].value[2*node*OUT+:OUT];
          end
          assign value[node*OUT+:OUT] = total;
        end
      end
    end
  endgenerate

  assign sum = stage[LEVELS].value;
endmodule
