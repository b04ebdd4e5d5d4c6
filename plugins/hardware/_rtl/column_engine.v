// The column-FIFO engine: G groups of P processing elements. A group broadcasts its columns one after another to its
// PEs, as soon as no FIFO is full; row r is on PE r mod P of every group. When all are done the partial sums of the
// groups are added, P rows per cycle. The vector RAM has two halves: while one is read, the next vector is written to
// the other. Where PRELOADED is set, PE p of group g holds the words of the file WEIGHTS followed by four digits of
// g * P + p and `.hex`.
module column_engine #(
    parameter G = 1,
    parameter P = 8,
    parameter WIDTH = 16,
    parameter VECTOR_BITS = WIDTH,
    parameter ROW_BITS = 7,
    parameter SUM_BITS = 48,
    parameter DEPTH_BITS = 9,
    parameter COLUMN_BITS = 8,
    parameter FIFO_BITS = 3,
    parameter WORDS = 1 << DEPTH_BITS,
    parameter PRELOADED = 0,
    parameter WEIGHTS = "",
    parameter WEIGHT_STYLE = "auto",
    parameter WEIGHT_STYLE_INTEL = "",
    parameter VECTOR_STYLE = "auto",
    parameter VECTOR_STYLE_INTEL = "",
    parameter SUM_STYLE = "auto",
    parameter SUM_STYLE_INTEL = "",
    parameter WORD_BITS = 1 + ROW_BITS + WIDTH
) (
    input wire clk,
    // Drains without a run before it: sets all sums to zero.
    input wire clear,
    input wire start,
    input wire [G*(COLUMN_BITS+1)-1:0] columns,
    input wire [G*P*(DEPTH_BITS+1)-1:0] counts,
    input wire [ROW_BITS:0] rows_per_pe,
    input wire [FIFO_BITS:0] fifo_depth,
    input wire [1:0] full_flag,
    input wire [G*P-1:0] weight_write,
    input wire [DEPTH_BITS-1:0] weight_address,
    input wire [WORD_BITS-1:0] weight_data,
    input wire half,
    input wire [G-1:0] vector_write,
    input wire [COLUMN_BITS:0] vector_address,
    input wire [G*VECTOR_BITS-1:0] vector_data,
    output wire summed,
    output reg result_valid,
    output wire [P*SUM_BITS-1:0] results
);
  wire [G*P-1:0] idle;
  wire [G-1:0] sent;
  // A net for each: in a simulator, a bus of them all would wake every reader of it with every sum that changes.
  wire [SUM_BITS-1:0] partial[0:G*P-1];
  reg running, draining, drained;
  reg [ROW_BITS-1:0] drain_row;
  reg [  ROW_BITS:0] drain_left;

  assign summed = running && &sent && &idle;

  genvar group, pe, at;
  generate
    for (group = 0; group < G; group = group + 1) begin : groups
      wire valid;
      wire [VECTOR_BITS-1:0] activation;
      wire [P-1:0] full;
      wire broadcast = valid && full == 0;

      stream #(
          .WIDTH(VECTOR_BITS),
          .DEPTH_BITS(COLUMN_BITS + 1),
          .STYLE(VECTOR_STYLE),
          .STYLE_INTEL(VECTOR_STYLE_INTEL)
      ) vector (
          .clk(clk),
          .start(start),
          .first({half, {COLUMN_BITS{1'b0}}}),
          .count({1'b0, columns[group*(COLUMN_BITS+1)+:COLUMN_BITS+1]}),
          .write(vector_write[group]),
          .write_address(vector_address),
          .write_data(vector_data[group*VECTOR_BITS+:VECTOR_BITS]),
          .take(broadcast),
          .valid(valid),
          .word(activation),
          .finished(sent[group])
      );

      for (pe = 0; pe < P; pe = pe + 1) begin : pes
        column_pe #(
            .WIDTH(WIDTH),
            .VECTOR_BITS(VECTOR_BITS),
            .ROW_BITS(ROW_BITS),
            .SUM_BITS(SUM_BITS),
            .DEPTH_BITS(DEPTH_BITS),
            .FIFO_BITS(FIFO_BITS),
            .WORDS(WORDS),
            .PRELOADED(PRELOADED),
            .INIT(WEIGHTS),
            .NUMBER(group * P + pe),
            .WEIGHT_STYLE(WEIGHT_STYLE),
            .WEIGHT_STYLE_INTEL(WEIGHT_STYLE_INTEL),
            .SUM_STYLE(SUM_STYLE),
            .SUM_STYLE_INTEL(SUM_STYLE_INTEL)
        ) element (
            .clk(clk),
            .start(start),
            .count(counts[(group*P+pe)*(DEPTH_BITS+1)+:DEPTH_BITS+1]),
            .weight_write(weight_write[group*P+pe]),
            .weight_address(weight_address),
            .weight_data(weight_data),
            .fifo_depth(fifo_depth),
            .full_flag(full_flag),
            .push(broadcast),
            .activation(activation),
            .full(full[pe]),
            .idle(idle[group*P+pe]),
            .drain(draining),
            .drain_row(drain_row),
            .drained(partial[pe*G+group])
        );
      end
    end

    // One register for the sum of the groups, whatever their number: the latency is the same for every G.
    for (at = 0; at < P; at = at + 1) begin : reduction
      reg [SUM_BITS-1:0] total;
      for (group = 0; group < G; group = group + 1) begin : upto
        wire [SUM_BITS-1:0] sum;
        if (group == 0) assign sum = partial[at*G];
        else assign sum = upto[group-1].sum + partial[at*G+group];
      end
      // Stands still unless sums are read: a simulator, and a chip, work no more than they must.
      always @(posedge clk) if (drained) total <= upto[G-1].sum;
      assign results[at*SUM_BITS+:SUM_BITS] = total;
    end
  endgenerate

  always @(posedge clk) begin
    if (start) running <= 1;
    else if (clear || summed) running <= 0;
    if (clear || summed) begin
      draining <= 1;
      drain_row <= 0;
      drain_left <= rows_per_pe - 1'b1;
    end else if (draining) begin
      draining <= drain_left != 0;
      drain_row <= drain_row + 1'b1;
      drain_left <= drain_left - 1'b1;
    end
    if (start) draining <= 0;
    drained <= draining;
    result_valid <= drained;
  end
endmodule
