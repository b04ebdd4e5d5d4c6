// Runs the column-FIFO engine on one case read from files and checks every dot product.
//
// +words +counts +vector +columns +expected: files for $readmemh; +rows +depth +full_flag: numbers. Prints
// `cycles C summed S high_water H wrong W`: clock edges from `start` to the last result and to the last accumulated
// product, the most entries that ever stood in one FIFO, and results that are not what was expected.
module column_bench;
  parameter G = 1;
  parameter P = 8;
  localparam WIDTH = 16;
  localparam ROW_BITS = 9;
  localparam SUM_BITS = 48;
  localparam DEPTH_BITS = 14;
  localparam COLUMN_BITS = 11;
  localparam FIFO_BITS = 4;
  localparam WORD_BITS = 1 + ROW_BITS + WIDTH;

  reg [WORD_BITS-1:0] words[0:(G*P<<DEPTH_BITS)-1];
  reg [31:0] pe_words[0:G*P-1];
  reg [WIDTH-1:0] vector[0:(G<<COLUMN_BITS)-1];
  reg [31:0] group_columns[0:G-1];
  reg [SUM_BITS-1:0] expected[0:(P<<ROW_BITS)-1];
  reg [1023:0] file;

  reg clk = 0;
  always #5 clk = !clk;

  reg clear = 0, start = 0;
  reg [1:0] full_flag = 0;
  reg [G*(COLUMN_BITS+1)-1:0] columns = 0;
  reg [G*P*(DEPTH_BITS+1)-1:0] counts = 0;
  reg [ROW_BITS:0] rows_per_pe = 0;
  reg [FIFO_BITS:0] fifo_depth = 0;
  reg [G*P-1:0] weight_write = 0;
  reg [DEPTH_BITS-1:0] weight_address = 0;
  reg [WORD_BITS-1:0] weight_data = 0;
  reg [G-1:0] vector_write = 0;
  reg [COLUMN_BITS:0] vector_address = 0;
  reg [WIDTH-1:0] vector_data = 0;
  wire summed, result_valid;
  wire [P*SUM_BITS-1:0] results;

  column_engine #(
      .G(G),
      .P(P),
      .WIDTH(WIDTH),
      .ROW_BITS(ROW_BITS),
      .SUM_BITS(SUM_BITS),
      .DEPTH_BITS(DEPTH_BITS),
      .COLUMN_BITS(COLUMN_BITS),
      .FIFO_BITS(FIFO_BITS)
  ) engine (
      .clk(clk),
      .clear(clear),
      .start(start),
      .columns(columns),
      .counts(counts),
      .rows_per_pe(rows_per_pe),
      .fifo_depth(fifo_depth),
      .full_flag(full_flag),
      .weight_write(weight_write),
      .weight_address(weight_address),
      .weight_data(weight_data),
      .half(1'b0),
      .vector_write(vector_write),
      .vector_address(vector_address),
      .vector_data({G{vector_data}}),
      .summed(summed),
      .result_valid(result_valid),
      .results(results)
  );

  wire [FIFO_BITS:0] entries[0:G*P-1];
  genvar group, element;
  generate
    for (group = 0; group < G; group = group + 1) begin : watched
      for (element = 0; element < P; element = element + 1) begin : pes
        assign entries[group*P+element] = engine.groups[group].pes[element].element.entries;
      end
    end
  endgenerate

  integer rows, depth, flag, pe, at, base, total, cycles, summed_at, row, wrong;
  reg [FIFO_BITS:0] high_water;

  initial begin
    if (!$value$plusargs("rows=%d", rows)) $finish;
    if (!$value$plusargs("depth=%d", depth)) $finish;
    if (!$value$plusargs("full_flag=%d", flag)) flag = 0;
    full_flag = flag[1:0];
    fifo_depth = depth[FIFO_BITS:0];
    at = (rows + P - 1) / P;
    rows_per_pe = at[ROW_BITS:0];
    if ($value$plusargs("counts=%s", file)) $readmemh(file, pe_words);
    if ($value$plusargs("columns=%s", file)) $readmemh(file, group_columns);
    total = 0;
    for (pe = 0; pe < G * P; pe = pe + 1) begin
      total = total + pe_words[pe];
      counts[pe*(DEPTH_BITS+1)+:DEPTH_BITS+1] = pe_words[pe][DEPTH_BITS:0];
    end
    base = 0;
    for (pe = 0; pe < G; pe = pe + 1) begin
      base = base + group_columns[pe];
      columns[pe*(COLUMN_BITS+1)+:COLUMN_BITS+1] = group_columns[pe][COLUMN_BITS:0];
    end
    if ($value$plusargs("words=%s", file)) $readmemh(file, words, 0, total - 1);
    if ($value$plusargs("vector=%s", file)) $readmemh(file, vector, 0, base - 1);
    if ($value$plusargs("expected=%s", file)) $readmemh(file, expected, 0, rows - 1);

    // Inputs change in the middle of a cycle: no race with the clock edge in any simulator.
    // Memories are filled through the ports that a host would use; meanwhile the sums are set to zero.
    @(negedge clk);
    clear = 1;
    base = 0;
    for (pe = 0; pe < G; pe = pe + 1) begin
      for (at = 0; at < group_columns[pe]; at = at + 1) begin
        @(negedge clk);
        clear = 0;
        vector_write = {{(G - 1) {1'b0}}, 1'b1} << pe;
        vector_address = at[COLUMN_BITS:0];
        vector_data = vector[base+at];
      end
      base = base + group_columns[pe];
    end
    @(negedge clk);
    clear = 0;
    vector_write = 0;
    base = 0;
    for (pe = 0; pe < G * P; pe = pe + 1) begin
      for (at = 0; at < pe_words[pe]; at = at + 1) begin
        @(negedge clk);
        weight_write = {{(G * P - 1) {1'b0}}, 1'b1} << pe;
        weight_address = at[DEPTH_BITS-1:0];
        weight_data = words[base+at];
      end
      base = base + pe_words[pe];
    end
    for (at = -4; at * P < rows; at = at + 1) begin
      @(negedge clk);
      weight_write = 0;
    end
    start = 1;
    cycles = 0;
    summed_at = 0;
    row = 0;
    high_water = 0;
    wrong = 0;
    while (row < rows && cycles < 4 * total + 4 * rows + 1000) begin
      @(negedge clk);
      start = 0;
      cycles = cycles + 1;
      if (summed) summed_at = cycles;
      for (pe = 0; pe < G * P; pe = pe + 1) if (entries[pe] > high_water) high_water = entries[pe];
      if (result_valid)
        for (pe = 0; pe < P; pe = pe + 1) begin
          if (row < rows && results[pe*SUM_BITS+:SUM_BITS] !== expected[row]) wrong = wrong + 1;
          row = row + 1;
        end
    end
    if (row < rows) wrong = wrong + rows - row;
    $display("cycles %0d summed %0d high_water %0d wrong %0d", cycles, summed_at, high_water, wrong);
    $finish;
  end
endmodule
