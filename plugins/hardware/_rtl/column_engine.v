// The column-FIFO engine: G groups of P processing elements. A group broadcasts its columns one after another to its
// PEs, as soon as no FIFO is full; row r is on PE r mod P of every group. When all are done the partial sums of the
// groups are added, P rows per cycle.
module column_engine #(
    parameter G = 1,
    parameter P = 8,
    parameter WIDTH = 16,
    parameter ROW_BITS = 7,
    parameter SUM_BITS = 48,
    parameter DEPTH_BITS = 9,
    parameter COLUMN_BITS = 8,
    parameter FIFO_BITS = 3,
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
    input wire [G-1:0] vector_write,
    input wire [COLUMN_BITS-1:0] vector_address,
    input wire [WIDTH-1:0] vector_data,
    output wire summed,
    output reg result_valid,
    output wire [P*SUM_BITS-1:0] results
);
  wire [G*P-1:0] full, idle;
  wire [G-1:0] sent;
  wire [G*P*SUM_BITS-1:0] partial;
  reg running, draining, drained;
  reg [ROW_BITS-1:0] drain_row;
  reg [  ROW_BITS:0] drain_left;

  assign summed = running && &sent && &idle;

  genvar group, pe, at;
  generate
    for (group = 0; group < G; group = group + 1) begin : groups
      wire valid;
      wire [WIDTH-1:0] activation;
      wire broadcast = valid && full[group*P+:P] == 0;

      stream #(
          .WIDTH(WIDTH),
          .DEPTH_BITS(COLUMN_BITS)
      ) vector (
          .clk(clk),
          .start(start),
          .count(columns[group*(COLUMN_BITS+1)+:COLUMN_BITS+1]),
          .write(vector_write[group]),
          .write_address(vector_address),
          .write_data(vector_data),
          .take(broadcast),
          .valid(valid),
          .word(activation),
          .finished(sent[group])
      );

      for (pe = 0; pe < P; pe = pe + 1) begin : pes
        column_pe #(
            .WIDTH(WIDTH),
            .ROW_BITS(ROW_BITS),
            .SUM_BITS(SUM_BITS),
            .DEPTH_BITS(DEPTH_BITS),
            .FIFO_BITS(FIFO_BITS)
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
            .full(full[group*P+pe]),
            .idle(idle[group*P+pe]),
            .drain(draining),
            .drain_row(drain_row),
            .drained(partial[(pe*G+group)*SUM_BITS+:SUM_BITS])
        );
      end
    end

    // One register for the sum of the groups, whatever their number: the latency is the same for every G.
    for (at = 0; at < P; at = at + 1) begin : reduction
      reg [SUM_BITS-1:0] sum, total;
      integer term;
      always @* begin
        sum = 0;
        for (term = 0; term < G; term = term + 1) sum = sum + partial[(at*G+term)*SUM_BITS+:SUM_BITS];
      end
      always @(posedge clk) total <= sum;
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
