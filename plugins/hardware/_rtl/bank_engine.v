// The bank engine: M processing elements, row r on PE r mod M, the whole vector in each.
// Where PRELOADED is set, PE p holds the words of the file WEIGHTS followed by four digits of p and `.hex`.
module bank_engine #(
    parameter M = 4,
    parameter N = 16,
    parameter WIDTH = 16,
    parameter VECTOR_BITS = WIDTH,
    parameter INDEX_BITS = 5,
    parameter WAVE_BITS = 3,
    parameter SUM_BITS = 48,
    parameter DEPTH_BITS = 12,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter PRELOADED = 0,
    parameter WEIGHTS = "",
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter VECTOR_STYLE = "auto",
    parameter VECTOR_STYLE_INTEL = "",
    parameter WORD_BITS = 1 + WAVE_BITS + N * (INDEX_BITS + WIDTH)
) (
    input wire clk,
    input wire start,
    input wire lockstep,
    // Words of every PE, DEPTH_BITS + 1 bits each, the first in the lowest bits.
    input wire [M*(DEPTH_BITS+1)-1:0] counts,
    input wire [M-1:0] weight_write,
    input wire [DEPTH_BITS-1:0] weight_address,
    input wire [WORD_BITS-1:0] weight_data,
    input wire half,
    // The vector is written in all PEs at once; every lane has a port of its own.
    input wire [N-1:0] vector_write,
    input wire [N*(1+WAVE_BITS+INDEX_BITS)-1:0] vector_address,
    input wire [N*VECTOR_BITS-1:0] vector_data,
    output wire [M-1:0] result_valid,
    output wire [M*SUM_BITS-1:0] results
);
  wire [M-1:0] at_end;
  wire together = &at_end;

  genvar pe;
  generate
    for (pe = 0; pe < M; pe = pe + 1) begin : pes
      bank_pe #(
          .N(N),
          .WIDTH(WIDTH),
          .VECTOR_BITS(VECTOR_BITS),
          .INDEX_BITS(INDEX_BITS),
          .WAVE_BITS(WAVE_BITS),
          .SUM_BITS(SUM_BITS),
          .DEPTH_BITS(DEPTH_BITS),
          .WORDS(WORDS),
          .PRELOADED(PRELOADED),
          .INIT(WEIGHTS),
          .NUMBER(pe),
          .WEIGHT_STYLE(WEIGHT_STYLE),
          .WEIGHT_STYLE_INTEL(WEIGHT_STYLE_INTEL),
          .VECTOR_STYLE(VECTOR_STYLE),
          .VECTOR_STYLE_INTEL(VECTOR_STYLE_INTEL)
      ) element (
          .clk(clk),
          .start(start),
          .count(counts[pe*(DEPTH_BITS+1)+:DEPTH_BITS+1]),
          .lockstep(lockstep),
          .together(together),
          .at_end(at_end[pe]),
          .weight_write(weight_write[pe]),
          .weight_address(weight_address),
          .weight_data(weight_data),
          .half(half),
          .vector_write(vector_write),
          .vector_address(vector_address),
          .vector_data(vector_data),
          .result_valid(result_valid[pe]),
          .result(results[pe*SUM_BITS+:SUM_BITS])
      );
    end
  endgenerate
endmodule
